// timeout: 300
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { request as requestHTTP } from 'node:http';
import { request as requestHTTPS } from 'node:https';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { V1Job, V1Pod, V1Secret } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RESOURCES } from '../../operator/api/object.ts';
import type { TrainingJob } from '../../operator/api/trainingjob.ts';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { CLAIMS, JOBS, type KubeObject, PODS, type Resource, SECRETS } from '../../operator/kube/resources.ts';
import { INDEX_ANNOTATION } from '../../operator/manifests/labels.ts';
import { type PodIdentity, Refusal, tokenVerifier } from '../../operator/web/tokens.ts';
import { EXIT, INTAKE_AUDIENCE, type Progress, type Result, type Ring } from '../../trainer-image/contract.ts';
import { kubectlBinaries } from '../cluster/build.ts';
import { command } from '../cluster/command.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { freePorts } from '../cluster/ports.ts';
import { eventually } from '../eventually.ts';
import { installKinds } from './kinds.ts';

const it = suite('rings before a real API server');

const NAMESPACES: Resource = { group: '', version: 'v1', plural: 'namespaces', kind: 'Namespace', namespaced: false };
const DIGEST = `sha256:${'a'.repeat(64)}`;

type Pod = V1Pod & KubeObject;
type Job = TrainingJob & KubeObject;

let plane: ControlPlane;
let client: Client;
let kubectl: (...args: string[]) => Promise<string>;
let ca: string;
const operators: { process: ChildProcess; port: number }[] = [];

/** One that stands for election like any other. */
async function startOperator(port: number): Promise<void> {
  const child = spawn(process.execPath, ['operator/main.ts'], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: {
      ...process.env,
      KUBECONFIG: plane.kubeconfig,
      INTAKE_PORT: String(port),
      HEALTH_PORT: '0',
      LOG_LEVEL: 'error',
    },
  });
  operators.push({ process: child, port });
}

it.before(async () => {
  plane = await startControlPlane({ controllers: true });
  client = await connect(loadConfig(plane.kubeconfig));
  const binary = join(await kubectlBinaries(), 'kubectl');
  kubectl = (...args) => command(binary, ['--kubeconfig', plane.kubeconfig, ...args]);
  await installKinds(client);
  const [port] = await freePorts(1);
  await startOperator(port);
  const secret = await eventually(() => client.get<V1Secret & KubeObject>(SECRETS, 'default', 'fovea-intake-tls'));
  ca = Buffer.from(secret.data?.['tls.crt'] ?? '', 'base64').toString();
});
it.after(async () => {
  for (const { process: child } of operators) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
  await client.close();
  await plane.stop();
});

// ---------------------------------------------------------------------------------------- jobs and their pods

/** Reports a pod's state as a kubelet would. */
async function kubelet(pod: Pod, status: V1Pod['status']): Promise<Pod> {
  return eventually(async () => {
    const now = await client.get<Pod>(PODS, pod.metadata?.namespace, pod.metadata?.name ?? '');
    return client.replaceStatus(PODS, { ...now, status: { ...now.status, ...status } } as Pod);
  });
}
let address = 0;
function runs(pod: Pod): Promise<Pod> {
  const podIP = `10.1.0.${++address}`;
  const container = { name: 'trainer', image: 'i', imageID: 'i', ready: true, restartCount: 0 };
  return kubelet(pod, {
    phase: 'Running',
    podIP,
    podIPs: [{ ip: podIP }],
    containerStatuses: [{ ...container, state: { running: { startedAt: new Date() } } }],
  });
}
function ends(pod: Pod, exitCode: number, result?: Result): Promise<Pod> {
  const at = new Date();
  const message = result && JSON.stringify({ result });
  const terminated = { exitCode, reason: 'Done', message, startedAt: at, finishedAt: at };
  const container = { name: 'trainer', image: 'i', imageID: 'i', ready: false, restartCount: 0 };
  return kubelet(pod, {
    phase: exitCode === 0 ? 'Succeeded' : 'Failed',
    containerStatuses: [{ ...container, state: { terminated } }],
  });
}

/** Pods of the object's present Job that have not ended, by index. */
function podsOf(kind: 'datasets' | 'trainingJobs', ns: string, name: string, count: number): Promise<Pod[]> {
  let seen = 0;
  return eventually(
    async () => {
      const { jobName } = (await client.get<Job>(RESOURCES[kind], ns, name)).status ?? {};
      if (!jobName) return undefined;
      const { items } = await client.list<Pod>(PODS, { namespace: ns, labelSelector: `job-name=${jobName}` });
      const live = items.filter(({ status }) => status?.phase === 'Pending' || status?.phase === 'Running');
      seen = live.length;
      const index = (pod: Pod) => Number(pod.metadata?.annotations?.[INDEX_ANNOTATION]);
      return live.length === count ? live.sort((a, b) => index(a) - index(b)) : undefined;
    },
    () => `${count} pods of ${name}, there are ${seen}`,
  );
}

const job = (ns: string, name: string) => client.get<Job>(RESOURCES.trainingJobs, ns, name);

/** A namespace with a packed Dataset. */
async function place(ns: string): Promise<string> {
  await client.create(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: ns } });
  await client.create(CLAIMS, {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: 'fovea-store', namespace: ns },
    spec: { accessModes: ['ReadWriteMany'], resources: { requests: { storage: '1Gi' } } },
  } as KubeObject);
  const source = { type: 'HTTP', http: { url: 'http://127.0.0.1/a.tar', digest: DIGEST } };
  await client.create(RESOURCES.datasets, {
    apiVersion: 'fovea.dev/v1alpha1',
    kind: 'Dataset',
    metadata: { name: 'd', namespace: ns },
    spec: { source },
  } as KubeObject);
  const [pod] = await podsOf('datasets', ns, 'd', 1);
  await ends(pod, 0, {
    kind: 'prepare',
    artifact: { uri: 'store://blobs/sha256/a', digest: DIGEST, sizeBytes: 1 },
    samples: 1,
    classes: [],
    classCount: 0,
    quarantined: { count: 0, first: [] },
    statistics: { mean: [0.5], std: [0.5] },
    duplicates: { count: 0, acrossSplits: 0 },
    reportURI: 'store://blobs/sha256/b',
  });
  return ns;
}

/** A TrainingJob whose workers all run. */
async function train(ns: string, name: string, spec: Partial<TrainingJob['spec']> = {}): Promise<Pod[]> {
  const trainer = { type: 'BuiltIn', builtIn: { model: { name: 'ResNet20' } } };
  await client.create(RESOURCES.trainingJobs, {
    apiVersion: 'fovea.dev/v1alpha1',
    kind: 'TrainingJob',
    metadata: { name, namespace: ns },
    spec: { datasetRef: { name: 'd' }, trainer, workers: { replicas: 2 }, ...spec },
  } as KubeObject);
  return Promise.all((await podsOf('trainingJobs', ns, name, 2)).map(runs));
}

// ---------------------------------------------------------------------------------------- what a worker does

/** A token as the kubelet projects it into the pod. */
async function tokenOf(pod: Pod, audience = INTAKE_AUDIENCE): Promise<string> {
  const { name = '', namespace = '', uid } = pod.metadata ?? {};
  const bound = ['--bound-object-kind=Pod', `--bound-object-name=${name}`, `--bound-object-uid=${uid}`];
  const made = await kubectl('-n', namespace, 'create', 'token', 'default', `--audience=${audience}`, ...bound);
  return made.trim();
}

interface Answer {
  status: number | undefined;
  body: Partial<Ring> & { reason?: string; message?: string };
}

async function post(path: string, token: string | undefined, message: object, port: number): Promise<Answer> {
  const sent = requestHTTPS(`https://127.0.0.1:${port}${path}`, {
    method: 'POST',
    ca,
    headers: { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) },
    agent: false,
  });
  sent.end(JSON.stringify(message));
  const [response] = await once(sent, 'response');
  const body = await text(response);
  return { status: response.statusCode, body: body === '' ? {} : JSON.parse(body) };
}

/** Asks once. */
const askOnce = async (pod: Pod, after: number, port = operators[0].port) =>
  post('/v1/ring', await tokenOf(pod), { after }, port);

/** Asks until there is a ring: the operator may not know the pod yet, and each request is held for a while only. */
async function ring(pod: Pod, after: number, port?: number): Promise<Ring> {
  const token = await tokenOf(pod);
  let last: unknown;
  return eventually(
    async () => {
      last = await post('/v1/ring', token, { after }, port ?? operators[0].port);
      const { status, body } = last as Answer;
      return status === 200 ? (body as Ring) : undefined;
    },
    () => `a ring for ${pod.metadata?.name}: ${JSON.stringify(last)}`,
  );
}

const report = async (pod: Pod, progress: Progress) =>
  post('/v1/progress', await tokenOf(pod), progress, operators[0].port);

const refusal = ({ status, body }: Answer) => [status, body.reason];

// ---------------------------------------------------------------------------------------- the tests

let workers: Pod[];

it('gives all workers of a job one ring, which the status tells before they know it', async () => {
  await place('a');
  workers = await train('a', 't');
  const asked = workers.map((pod) => ring(pod, 0));
  const first = await Promise.race(asked);
  const { status } = await job('a', 't');
  assert.is(status?.ring?.generation, first.generation);
  assert.equal(
    status?.ring?.members,
    workers.map(({ metadata }, rank) => ({ rank, pod: metadata?.name, uid: metadata?.uid })),
  );
  const rings = await Promise.all(asked);
  assert.equal(
    rings.map(({ rank }) => rank),
    [0, 1],
  );
  assert.equal(
    rings[0].members,
    workers.map((pod, rank) => ({ rank, pod: pod.metadata?.name, address: pod.status?.podIP })),
  );
  assert.equal(rings[0].members, rings[1].members);
  assert.is(rings[0].secret, rings[1].secret);
  assert.is(Buffer.from(rings[0].secret, 'base64').length, 32);
});

it('gives who asks late the ring that there is, and who finds it broken the next, with another secret', async () => {
  const before = await ring(workers[0], 0);
  const [one, other] = await Promise.all(workers.map((pod) => ring(pod, before.generation)));
  assert.is(one.generation, before.generation + 1);
  assert.is.not(one.secret, before.secret);
  assert.is(one.secret, other.secret);
});

it('answers from the status where it does not lead, and after the one that led was killed', async () => {
  const [port] = await freePorts(1);
  await startOperator(port);
  const known = await ring(workers[0], 0);
  assert.equal(await ring(workers[0], 0, port), known);
  operators[0].process.kill('SIGKILL');
  await once(operators[0].process, 'exit');
  operators.shift();
  assert.equal((await askOnce(workers[0], 0)).body, known);
});

it('makes the next ring with the pod that replaces one which ended, once another leads', async () => {
  const before = await ring(workers[0], 0);
  await ends(workers[1], EXIT.INTERRUPTED);
  const replaced = await eventually(async () => {
    const pods = await podsOf('trainingJobs', 'a', 't', 2);
    return pods[1].metadata?.uid === workers[1].metadata?.uid ? undefined : pods[1];
  });
  const dead = workers[1];
  workers = [workers[0], await runs(replaced)];
  const rings = await Promise.all([ring(workers[0], before.generation), ring(workers[1], 0)]);
  assert.is(rings[1].generation, before.generation + 1);
  assert.is(rings[1].members[1].pod, workers[1].metadata?.name);
  assert.is(rings[0].secret, rings[1].secret);
  const { status } = await job('a', 't');
  assert.is(status?.workers?.lost, 0, 'one that was told to stop is not lost');
  assert.is.not(dead.metadata?.uid, workers[1].metadata?.uid);
});

it('refuses a pod that is not of the job, whatever its labels and owners say', async () => {
  const [worker] = workers;
  const [{ spec }] = (
    await client.list<V1Job & KubeObject>(JOBS, { namespace: 'a', labelSelector: 'fovea.dev/trainingjob=t' })
  ).items.map((item) => item.spec?.template ?? {}) as [V1Pod];
  const stranger = (name: string, namespace: string, ownerReferences: KubeObject[] = []) =>
    client.create(PODS, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name,
        namespace,
        labels: { 'app.kubernetes.io/managed-by': 'fovea', 'fovea.dev/trainingjob': 't' },
        ownerReferences,
        // Owners are of the same namespace: the garbage collector would take it away.
        finalizers: ['test.fovea.dev/hold'],
      },
      spec,
    } as unknown as Pod);
  const labelled = await runs(await stranger('labelled', 'a'));
  await eventually(async () => (await askOnce(labelled, 0)).body.reason !== 'UnknownPod');
  assert.equal(refusal(await askOnce(labelled, 0)), [403, 'NoWorker']);

  await client.create(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'elsewhere' } });
  await eventually(() => kubectl('-n', 'elsewhere', 'get', 'serviceaccount', 'default'));
  const owner = worker.metadata?.ownerReferences?.[0] as unknown as KubeObject;
  const abroad = await stranger(worker.metadata?.name ?? '', 'elsewhere', [owner]);
  const answer = await eventually(async () => {
    const given = await askOnce(abroad, 0);
    return given.body.reason === 'UnknownPod' ? undefined : given;
  });
  assert.equal(refusal(answer), [404, 'UnknownJob']);
});

it('gives a pod of another job its own ring only', async () => {
  const others = await train('a', 'other');
  const [own] = await Promise.all(others.map((pod) => ring(pod, 0)));
  const theirs = await ring(workers[0], 0);
  assert.equal(
    own.members.map(({ pod }) => pod),
    others.map((pod) => pod.metadata?.name),
  );
  assert.is.not(own.secret, theirs.secret);
});

it('refuses tokens that are for another purpose, expired, forged or absent, and a client without TLS', async () => {
  const [{ port }] = operators;
  const ask = async (token: string | undefined) => refusal(await post('/v1/ring', token, { after: 0 }, port));
  assert.equal(await ask(await tokenOf(workers[0], 'https://kubernetes.default.svc')), [401, 'WrongClaim']);
  assert.equal(await ask(undefined), [401, 'NoToken']);
  const good = await tokenOf(workers[0]);
  assert.equal(await ask(`${good.slice(0, -8)}AAAAAAAA`), [401, 'BadToken']);
  // Kubernetes makes no token that lives for less than ten minutes, so it is the clock that is set.
  const later = (hours: number): Promise<PodIdentity | Refusal> =>
    tokenVerifier(client, () => Date.now() + hours * 3_600_000)(`Bearer ${good}`).catch((error) => error);
  assert.is(((await later(0)) as PodIdentity).podUid, workers[0].metadata?.uid);
  const expired = await later(2);
  assert.ok(expired instanceof Refusal);
  assert.equal([expired.status, expired.reason], [401, 'TokenExpired']);

  const plain = requestHTTP({ host: '127.0.0.1', port, path: '/v1/ring', method: 'POST', agent: false });
  plain.end('{"after":0}');
  const outcome = await once(plain, 'response').then(
    ([response]) => response.statusCode,
    () => 'cut',
  );
  assert.is(outcome, 'cut');
});

it('names the worker that others wait for, and replaces it', async () => {
  const ns = await place('hang');
  const pods = await train(ns, 't', { policy: { hang: { timeoutSeconds: 1 } } });
  const say = (pod: Pod, activity: Progress['activity']) =>
    report(pod, {
      stage: 'training',
      percent: 1,
      step: 7,
      activity,
      standingSeconds: 60,
      stack: 'at conv2d\nat forward',
    });
  await eventually(async () => {
    await say(pods[0], 'Exchanging');
    await say(pods[1], 'Computing');
    // Deleted at once, since no kubelet holds it; its finalizer is the Job controller's.
    const pod = await client.get<Pod>(PODS, ns, pods[1].metadata?.name ?? '').catch(() => undefined);
    return pod?.metadata?.uid !== pods[1].metadata?.uid || pod?.metadata?.deletionTimestamp !== undefined;
  });
  const events = await kubectl(
    '-n',
    ns,
    'get',
    'events',
    '-o',
    'jsonpath={range .items[*]}{.reason}: {.message}{"\\n"}{end}',
  );
  const hung = events.split('\n').find((line) => line.startsWith('Hung'));
  assert.match(hung ?? events, `rank 1 (pod ${pods[1].metadata?.name}) is Computing`);
  assert.match(hung ?? '', 'at conv2d | at forward');
  const kept = await client.get<Pod>(PODS, ns, pods[0].metadata?.name ?? '');
  assert.is(kept.metadata?.deletionTimestamp, undefined);
});

it('goes on in a new Job after losses, and refuses the pods of the former attempt', async () => {
  const ns = await place('lost');
  const pods = await train(ns, 't', { policy: { recreateAfter: 1 } });
  // Held back, so that it is still there when its Job is not.
  await client.patch(PODS, ns, pods[0].metadata?.name ?? '', {
    metadata: { finalizers: ['batch.kubernetes.io/job-tracking', 'test.fovea.dev/hold'] },
  });
  await ends(pods[1], EXIT.FAILURE);
  await eventually(async () => (await job(ns, 't')).status?.attempt === 2);
  await eventually(
    async () =>
      (await client.list(JOBS, { namespace: ns, labelSelector: 'fovea.dev/trainingjob=t' })).items.length === 0,
  );
  assert.equal((await askOnce(pods[0], 0)).status, 404);
  await ends(pods[0], EXIT.INTERRUPTED);
  await client.patch(PODS, ns, pods[0].metadata?.name ?? '', { metadata: { finalizers: null } });
  const next = await podsOf('trainingJobs', ns, 't', 2);
  assert.match(next[0].metadata?.name ?? '', /-2-0-/);
  const { status } = await job(ns, 't');
  assert.equal([status?.workers?.lost, status?.attempt], [1, 2]);
});

it.run();
