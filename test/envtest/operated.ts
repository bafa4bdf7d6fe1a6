/** A control plane with its real controllers and the operator, without a kubelet: pods end as a test says. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { V1Pod } from '@kubernetes/client-node';
import { type FoveaObject, RESOURCES } from '../../operator/api/object.ts';
import type { RunStatus } from '../../operator/api/status.ts';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { CLAIMS, type KubeObject, PODS, type Resource } from '../../operator/kube/resources.ts';
import type { Failure, Result } from '../../trainer-image/contract.ts';
import { startControlPlane } from '../cluster/controlplane.ts';
import { eventually } from '../eventually.ts';
import { installKinds } from './kinds.ts';

const NAMESPACES: Resource = { group: '', version: 'v1', plural: 'namespaces', kind: 'Namespace', namespaced: false };
const VOLUMES: Resource = { ...NAMESPACES, plural: 'persistentvolumes', kind: 'PersistentVolume' };

export const DIGEST = { a: `sha256:${'a'.repeat(64)}`, b: `sha256:${'b'.repeat(64)}`, c: `sha256:${'c'.repeat(64)}` };

/** The least that each kind may say. */
export const SPECS = {
  datasets: { source: { type: 'HTTP', http: { url: 'http://127.0.0.1/a.tar', digest: DIGEST.a } } },
  trainingJobs: { datasetRef: { name: 'd' }, trainer: { type: 'BuiltIn', builtIn: { model: { name: 'ResNet20' } } } },
  modelExports: { source: { type: 'TrainingJob', trainingJob: { name: 't' } } },
  inferenceServices: { model: { type: 'Export', export: { name: 'e' } }, replicas: 2 },
} as const;
export type Kind = keyof typeof SPECS;
export type Any = FoveaObject<Record<string, unknown>, RunStatus & Record<string, unknown>>;

export interface Operated extends AsyncDisposable {
  client: Client;
  /** Makes a namespace in which Pod Security takes only what is `restricted`, so that every pod shows that ours are. */
  namespace(name: string): Promise<string>;
  /** Makes a namespace with a store that is bound. */
  place(name: string): Promise<string>;
  apply(kind: Kind, namespace: string, name: string, spec?: object): Promise<KubeObject>;
  get(kind: Kind, namespace: string, name: string): Promise<Any & KubeObject>;
  /** Waits until the object's condition has the status and, if given, the reason, at its present generation. */
  condition(
    kind: Kind,
    namespace: string,
    name: string,
    type: string,
    status: string,
    reason?: string,
    seconds?: number,
  ): Promise<Any>;
  /** The pod of the object's present Job, made by the real Job controller. */
  podOf(kind: Kind, namespace: string, name: string): Promise<V1Pod & KubeObject>;
  /** Runs a pod's container as a kubelet would report it. */
  run(pod: V1Pod & KubeObject): Promise<void>;
  /** Ends a pod's container as a kubelet would report it. */
  end(pod: V1Pod & KubeObject, exitCode: number, message: { result?: Result; failure?: Failure }): Promise<void>;
}

export async function startOperator({ scheduler = false } = {}): Promise<Operated> {
  const plane = await startControlPlane({ controllers: true, scheduler });
  const client = await connect(loadConfig(plane.kubeconfig));
  await installKinds(client);
  const operator = spawn(process.execPath, ['operator/main.ts'], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, KUBECONFIG: plane.kubeconfig, INTAKE_PORT: '0', HEALTH_PORT: '0', LOG_LEVEL: 'warn' },
  });

  const get = (kind: Kind, namespace: string, name: string) =>
    client.get<Any & KubeObject>(RESOURCES[kind], namespace, name);

  async function namespace(name: string): Promise<string> {
    const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
    await client.create(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } });
    return name;
  }

  /** The trainer's container in this state. */
  async function report(pod: V1Pod & KubeObject, phase: string, state: object): Promise<void> {
    const container = { name: 'trainer', image: 'i', imageID: 'i', ready: phase === 'Running', restartCount: 0, state };
    await eventually(async () => {
      // The scheduler writes conditions meanwhile.
      const now = await client.get<V1Pod & KubeObject>(PODS, pod.metadata?.namespace, pod.metadata?.name ?? '');
      const status = { ...now.status, phase, containerStatuses: [container] };
      return client.replaceStatus(PODS, { ...now, status } as unknown as KubeObject);
    });
  }

  return {
    client,
    namespace,
    get,
    async place(name) {
      await namespace(name);
      const spec = { accessModes: ['ReadWriteMany'], storageClassName: '' };
      await client.create(VOLUMES, {
        apiVersion: 'v1',
        kind: 'PersistentVolume',
        metadata: { name },
        spec: {
          ...spec,
          capacity: { storage: '1Gi' },
          hostPath: { path: '/nowhere' },
          claimRef: { namespace: name, name: 'fovea-store' },
        },
      } as KubeObject);
      await client.create(CLAIMS, {
        apiVersion: 'v1',
        kind: 'PersistentVolumeClaim',
        metadata: { name: 'fovea-store', namespace: name },
        spec: { ...spec, volumeName: name, resources: { requests: { storage: '1Gi' } } },
      } as KubeObject);
      return name;
    },
    apply(kind, ns, name, spec = SPECS[kind]) {
      const resource = RESOURCES[kind];
      const object = { apiVersion: 'fovea.dev/v1alpha1', kind: resource.kind, metadata: { name, namespace: ns }, spec };
      return client.create(resource, object as KubeObject);
    },
    condition(kind, ns, name, type, status, reason, seconds) {
      let seen = '';
      return eventually(
        async () => {
          const object = await get(kind, ns, name);
          seen = JSON.stringify(object.status?.conditions);
          const found = object.status?.conditions?.find((c) => c.type === type);
          const good =
            found?.status === status &&
            found.observedGeneration === object.metadata.generation &&
            (reason === undefined || found.reason === reason);
          return good ? object : undefined;
        },
        () => `${kind} ${name} ${type}=${status} ${reason ?? ''}: ${seen}`,
        seconds,
      );
    },
    podOf: (kind, ns, name) =>
      eventually(async () => {
        const { jobName } = (await get(kind, ns, name)).status ?? {};
        if (!jobName) return undefined;
        const labelSelector = `job-name=${jobName}`;
        const pods = await client.list<V1Pod & KubeObject>(PODS, { namespace: ns, labelSelector });
        return pods.items.find((pod) => pod.status?.phase === 'Pending');
      }),
    run: (pod) => report(pod, 'Running', { running: { startedAt: new Date().toISOString() } }),
    end(pod, exitCode, message) {
      const now = new Date().toISOString();
      const terminated = {
        exitCode,
        message: JSON.stringify(message),
        startedAt: now,
        finishedAt: now,
        reason: exitCode === 0 ? 'Completed' : 'Error',
      };
      return report(pod, exitCode === 0 ? 'Succeeded' : 'Failed', { terminated });
    },
    async [Symbol.asyncDispose]() {
      operator.kill('SIGTERM');
      await once(operator, 'exit');
      await client.close();
      await plane.stop();
    },
  };
}

const artifact = (digest: string) => ({ uri: `store://blobs/sha256/${digest.slice(7)}`, digest, sizeBytes: 1 });

export const prepared: Result = {
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

export const trained: Result = {
  kind: 'train',
  artifact: artifact(DIGEST.b),
  checkpoints: [{ name: 'Best', epoch: 3, digest: DIGEST.b, uri: artifact(DIGEST.b).uri }],
  preprocessing: { digest: DIGEST.a },
  epochs: 30,
  metrics: [{ name: 'ValidationAccuracy', value: 0.913 }],
};

export const exported = (passed: boolean): Result => ({
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
