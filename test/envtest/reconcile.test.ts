// timeout: 240
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { V1Deployment, V1Job, V1Pod } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type FoveaObject, RESOURCES } from '../../operator/api/object.ts';
import type { RunStatus } from '../../operator/api/status.ts';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { CLAIMS, DEPLOYMENTS, JOBS, type KubeObject, PODS, type Resource } from '../../operator/kube/resources.ts';
import { EXIT, type Failure, type Result } from '../../trainer-image/contract.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { eventually } from '../eventually.ts';
import { installKinds } from './kinds.ts';

const it = suite('reconcilers');

const NAMESPACES: Resource = { group: '', version: 'v1', plural: 'namespaces', kind: 'Namespace', namespaced: false };
const DIGEST = { a: `sha256:${'a'.repeat(64)}`, b: `sha256:${'b'.repeat(64)}`, c: `sha256:${'c'.repeat(64)}` };

let plane: ControlPlane;
let client: Client;
let operator: ChildProcess;

it.before(async () => {
  plane = await startControlPlane({ controllers: true });
  client = await connect(loadConfig(plane.kubeconfig));
  await installKinds(client);
  operator = spawn(process.execPath, ['operator/main.ts'], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, KUBECONFIG: plane.kubeconfig, INTAKE_PORT: '0', HEALTH_PORT: '0', LOG_LEVEL: 'warn' },
  });
});
it.after(async () => {
  operator.kill('SIGTERM');
  await once(operator, 'exit');
  await client.close();
  await plane.stop();
});

/** Pod Security refuses what is not `restricted`, so that every pod made in a test shows that ours are. */
async function namespace(name: string): Promise<string> {
  const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
  await client.create(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } });
  return name;
}

/** A namespace with a store; each test has its own. */
async function place(name: string): Promise<string> {
  await namespace(name);
  await client.create(CLAIMS, {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: 'fovea-store', namespace: name },
    spec: { accessModes: ['ReadWriteMany'], resources: { requests: { storage: '1Gi' } } },
  } as KubeObject);
  return name;
}

type Any = FoveaObject<Record<string, unknown>, RunStatus & Record<string, unknown>>;

const SPECS = {
  datasets: { source: { type: 'HTTP', http: { url: 'http://127.0.0.1/a.tar', digest: DIGEST.a } } },
  trainingJobs: { datasetRef: { name: 'd' }, trainer: { type: 'BuiltIn', builtIn: { model: { name: 'ResNet20' } } } },
  modelExports: { source: { type: 'TrainingJob', trainingJob: { name: 't' } } },
  inferenceServices: { model: { type: 'Export', export: { name: 'e' } }, replicas: 2 },
} as const;
type Kind = keyof typeof SPECS;

function apply(kind: Kind, ns: string, name: string, spec: object = SPECS[kind]): Promise<KubeObject> {
  const resource = RESOURCES[kind];
  const object = { apiVersion: 'fovea.dev/v1alpha1', kind: resource.kind, metadata: { name, namespace: ns }, spec };
  return client.create(resource, object as KubeObject);
}

const get = (kind: Kind, ns: string, name: string) => client.get<Any & KubeObject>(RESOURCES[kind], ns, name);

/** Waits until the object's condition has the status and, if given, the reason, at its present generation. */
function condition(kind: Kind, ns: string, name: string, type: string, status: string, reason?: string): Promise<Any> {
  let seen = '';
  return eventually(async () => {
    const object = await get(kind, ns, name);
    seen = JSON.stringify(object.status?.conditions);
    const found = object.status?.conditions?.find((c) => c.type === type);
    const good =
      found?.status === status &&
      found.observedGeneration === object.metadata.generation &&
      (reason === undefined || found.reason === reason);
    if (!good) throw new Error(`${kind} ${name}: ${seen}`);
    return object;
  });
}

/** The pod of the object's present Job, made by the real Job controller. */
function podOf(kind: Kind, ns: string, name: string): Promise<V1Pod & KubeObject> {
  return eventually(async () => {
    const { jobName } = (await get(kind, ns, name)).status ?? {};
    if (!jobName) return undefined;
    const pods = await client.list<V1Pod & KubeObject>(PODS, { namespace: ns, labelSelector: `job-name=${jobName}` });
    return pods.items.find((pod) => pod.status?.phase === 'Pending');
  });
}

/** Ends a pod's container as a kubelet would report it. */
async function end(pod: V1Pod & KubeObject, exitCode: number, message: { result?: Result; failure?: Failure }) {
  const now = new Date().toISOString();
  const terminated = { exitCode, message: JSON.stringify(message), startedAt: now, finishedAt: now, reason: 'Done' };
  await client.replaceStatus(PODS, {
    ...pod,
    status: {
      phase: exitCode === 0 ? 'Succeeded' : 'Failed',
      containerStatuses: [
        { name: 'trainer', image: 'i', imageID: 'i', ready: false, restartCount: 0, state: { terminated } },
      ],
    },
  } as unknown as KubeObject);
}

const artifact = (digest: string) => ({ uri: `store://blobs/sha256/${digest.slice(7)}`, digest, sizeBytes: 1 });
const prepared: Result = {
  kind: 'prepare',
  artifact: artifact(DIGEST.a),
  samples: 10,
  classes: [{ name: 'cat', index: 0, train: 8, validation: 1, test: 1 }],
  classCount: 1,
  quarantined: { count: 0, first: [] },
  statistics: { mean: [0.5], std: [0.25] },
  duplicates: { count: 0, acrossSplits: 0 },
  reportURI: `store://blobs/sha256/${'d'.repeat(64)}`,
};
const trained: Result = {
  kind: 'train',
  artifact: artifact(DIGEST.b),
  checkpoints: [{ name: 'Best', epoch: 3, digest: DIGEST.b, uri: artifact(DIGEST.b).uri }],
  preprocessing: { digest: DIGEST.a },
  epochs: 30,
  metrics: [{ name: 'ValidationAccuracy', value: 0.913 }],
};
const exported = (passed: boolean): Result => ({
  kind: 'export',
  artifact: artifact(DIGEST.c),
  verification: {
    passed,
    accuracy: passed ? 0.912 : 0.4,
    sourceAccuracy: 0.913,
    dropPoints: passed ? 0.1 : 51.3,
    maxLogitDifference: 0.00001,
    evaluated: 1000,
    sizeBytes: 1,
    predictions: DIGEST.a,
  },
  signature: { inputs: [{ name: 'image', dataType: 'UINT8', shape: 'N,3,32,32' }], outputs: [] },
});

it('carry four objects, applied at once and in the wrong order, from data to a service', async () => {
  const ns = await place('line');
  await apply('inferenceServices', ns, 's');
  await apply('modelExports', ns, 'e');
  await condition('inferenceServices', ns, 's', 'Ready', 'False', 'ModelExportNotReady');
  await condition('modelExports', ns, 'e', 'Ready', 'False', 'TrainingJobNotFound');
  await apply('trainingJobs', ns, 't');
  await condition('trainingJobs', ns, 't', 'Ready', 'False', 'DatasetNotFound');
  await apply('datasets', ns, 'd');
  await condition('trainingJobs', ns, 't', 'Ready', 'False', 'DatasetNotReady');
  await end(await podOf('datasets', ns, 'd'), 0, { result: prepared });
  const dataset = await condition('datasets', ns, 'd', 'Ready', 'True', 'Packed');
  assert.is(dataset.status?.artifact?.uri, `store://fovea-store/blobs/sha256/${'a'.repeat(64)}`);
  assert.equal(dataset.spec, SPECS.datasets, 'the spec is the user’s');

  await end(await podOf('trainingJobs', ns, 't'), 0, { result: trained });
  const job = await condition('trainingJobs', ns, 't', 'Complete', 'True');
  assert.is(job.status?.lineage?.[0].digest, DIGEST.a);
  assert.is((job.status?.resolved as { recipe: { epochs: number } } | undefined)?.recipe.epochs, 30);

  await end(await podOf('modelExports', ns, 'e'), 0, { result: exported(true) });
  await condition('modelExports', ns, 'e', 'Verified', 'True');

  const deployment = await eventually(async () => {
    const [found] = (await client.list<V1Deployment & KubeObject>(DEPLOYMENTS, { namespace: ns })).items;
    return found;
  });
  await condition('inferenceServices', ns, 's', 'Ready', 'Unknown', 'RollingOut');
  await condition('inferenceServices', ns, 's', 'Available', 'False');
  const ready = {
    replicas: 2,
    readyReplicas: 2,
    availableReplicas: 2,
    updatedReplicas: 2,
    observedGeneration: deployment.metadata?.generation,
  };
  await eventually(async () => {
    // The real Deployment controller writes too, and sees no ready pod; what matters is that ours is seen once.
    const now = await client.get<V1Deployment & KubeObject>(DEPLOYMENTS, ns, deployment.metadata?.name ?? '');
    await client.replaceStatus(DEPLOYMENTS, { ...now, status: ready } as unknown as KubeObject);
    const service = await get('inferenceServices', ns, 's');
    return (service.status?.revisions as { trafficPercent: number }[] | undefined)?.[0]?.trafficPercent === 100;
  });
  const service = await get('inferenceServices', ns, 's');
  assert.is(service.status?.modelDigest, DIGEST.c);
});

it('make a Job again that was deleted behind their back, and go on from there', async () => {
  const ns = await place('deleted');
  const kinds: [Kind, string, Result][] = [
    ['datasets', 'd', prepared],
    ['trainingJobs', 't', trained],
    ['modelExports', 'e', exported(true)],
  ];
  for (const [kind, name, result] of kinds) {
    await apply(kind, ns, name);
    const pod = await podOf(kind, ns, name);
    const { jobName } = (await get(kind, ns, name)).status ?? {};
    const job = await client.get<V1Job & KubeObject>(JOBS, ns, jobName!);
    await client.delete(JOBS, ns, jobName!, job.metadata?.uid);
    const again = await eventually(async () => {
      const next = await podOf(kind, ns, name);
      return next.metadata?.uid !== pod.metadata?.uid && next;
    });
    await end(again as V1Pod & KubeObject, 0, { result });
    await condition(kind, ns, name, 'Ready', 'True');
  }
  await apply('inferenceServices', ns, 's');
  const deployment = () =>
    eventually(async () => (await client.list<V1Deployment & KubeObject>(DEPLOYMENTS, { namespace: ns })).items[0]);
  const first = await deployment();
  await client.delete(DEPLOYMENTS, ns, first.metadata?.name ?? '', first.metadata?.uid);
  const second = await eventually(async () => {
    const next = await deployment();
    return next.metadata?.uid !== first.metadata?.uid && next;
  });
  assert.is((second as KubeObject).metadata?.name, first.metadata?.name);
});

it('stall on a failure that only the user can mend, with the pod’s own words, and run again when the spec changes', async () => {
  const ns = await place('failing');
  await apply('datasets', ns, 'd');
  const failure = { reason: 'DigestMismatch', message: 'the file is not the one that spec.source.http.digest names' };
  await end(await podOf('datasets', ns, 'd'), EXIT.USER_ERROR, { failure });
  const stalled = await condition('datasets', ns, 'd', 'Stalled', 'True', 'DigestMismatch');
  assert.match(stalled.status?.conditions?.find((c) => c.type === 'Ready')?.message ?? '', /the file is not the one/);
  assert.is(stalled.status?.lastFailure?.exitCode, EXIT.USER_ERROR);
  await client.patch(RESOURCES.datasets, ns, 'd', { spec: { source: { http: { digest: DIGEST.b } } } });
  await end(await podOf('datasets', ns, 'd'), 0, { result: prepared });
  const mended = await condition('datasets', ns, 'd', 'Ready', 'True');
  assert.is(mended.status?.lastFailure, undefined);
  assert.equal(
    mended.status?.history?.map((run) => run.result),
    ['Succeeded', 'Failed'],
  );
});

it('keep the numbers of an export that failed its verification, and offer nothing', async () => {
  const ns = await place('unverified');
  await apply('datasets', ns, 'd');
  await apply('trainingJobs', ns, 't');
  await apply('modelExports', ns, 'e');
  await end(await podOf('datasets', ns, 'd'), 0, { result: prepared });
  await end(await podOf('trainingJobs', ns, 't'), 0, { result: trained });
  const failure = { reason: 'VerificationFailed', message: 'accuracy fell by 51.3 points' };
  await end(await podOf('modelExports', ns, 'e'), EXIT.USER_ERROR, { result: exported(false), failure });
  const failed = await condition('modelExports', ns, 'e', 'Failed', 'True');
  assert.is((failed.status?.verification as { dropPoints: string } | undefined)?.dropPoints, '51.3');
  assert.is(failed.status?.artifact, undefined);
});

it('suspend a job by deleting its pods, and go on as the next attempt', async () => {
  const ns = await place('suspended');
  await apply('datasets', ns, 'd');
  await podOf('datasets', ns, 'd');
  await client.patch(RESOURCES.datasets, ns, 'd', { spec: { suspend: true } });
  await condition('datasets', ns, 'd', 'Suspended', 'True');
  await eventually(async () => (await client.list(JOBS, { namespace: ns })).items.length === 0);
  await client.patch(RESOURCES.datasets, ns, 'd', { spec: { suspend: false } });
  await podOf('datasets', ns, 'd');
  const resumed = await get('datasets', ns, 'd');
  assert.is(resumed.status?.attempt, 2);
  assert.match(resumed.status?.jobName ?? '', /-2$/);
});

it('wait for a store that does not exist and say its name', async () => {
  const ns = await namespace('storeless');
  await apply('datasets', ns, 'd');
  const waiting = await condition('datasets', ns, 'd', 'Ready', 'False', 'StoreNotFound');
  assert.match(waiting.status?.conditions?.[0].message ?? '', /PersistentVolumeClaim fovea-store does not exist/);
});

it('delete what they made when the object goes, and nothing else', async () => {
  const ns = await place('gone');
  await apply('datasets', ns, 'd');
  await podOf('datasets', ns, 'd');
  await client.delete(RESOURCES.datasets, ns, 'd');
  await eventually(async () => (await client.list(JOBS, { namespace: ns })).items.length === 0);
  assert.is((await client.list(CLAIMS, { namespace: ns })).items.length, 1);
});

it.run();
