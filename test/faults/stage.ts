/** What a scenario can do and wait for, as a user of the cluster, and where it stands. */
import { inputDigest } from '../../operator/api/digest.ts';
import { type FoveaObject, RESOURCES } from '../../operator/api/object.ts';
import type { RunStatus } from '../../operator/api/status.ts';
import type { Client } from '../../operator/kube/client.ts';
import type { KubeObject } from '../../operator/kube/resources.ts';
import { COMPONENTS } from '../../operator/manifests/labels.ts';
import type { Task } from '../../trainer-image/contract.ts';
import { digestOf } from './answers.ts';
import type { Kubelet, Ward } from './kubelet.ts';
import type { Chronicle } from './timeline.ts';

/** Longest wait of a scenario for one thing, in seconds: a kill and all back-offs fit in, on a busy machine too. */
const PATIENCE = 60;

export const SPECS = {
  datasets: { source: { type: 'HTTP', http: { url: 'http://127.0.0.1/a.tar', digest: `sha256:${'a'.repeat(64)}` } } },
  trainingJobs: { datasetRef: { name: 'd' }, trainer: { type: 'BuiltIn', builtIn: { model: { name: 'ResNet20' } } } },
  modelExports: { source: { type: 'TrainingJob', trainingJob: { name: 't' } } },
  inferenceServices: { model: { type: 'Export', export: { name: 'e' } }, replicas: 2 },
} as const;
export type Kind = keyof typeof SPECS;

/** The name each kind's one object has. */
const NAMES = { datasets: 'd', trainingJobs: 't', modelExports: 'e', inferenceServices: 's' } as const;
const TASKS = {
  prepare: 'datasets',
  train: 'trainingJobs',
  export: 'modelExports',
  serve: 'inferenceServices',
} as const;

type Any = FoveaObject<Record<string, unknown>, RunStatus & { revisions?: unknown }> & KubeObject;

export interface Stage {
  /** What is done from here on counts: writes before this are set-up. */
  begin(): void;
  apply(kind: Kind, spec?: object): Promise<void>;
  patch(kind: Kind, patch: object): Promise<void>;
  remove(kind: Kind): Promise<void>;
  /** Waits for the condition at the object's present generation. */
  condition(kind: Kind, type: string, status: string, reason?: string): Promise<void>;
  ready(kind: Kind): Promise<void>;
  /** Waits until the kind has no Job, Deployment and pod of its own. */
  childless(kind: Kind): Promise<void>;
  /** Waits until a worker of the object runs. */
  working(kind: Kind): Promise<void>;
  /** Work of this kind does not end from now on. */
  hold(kind: Kind): void;
  release(kind: Kind): void;
  /** Puts an object there whose run was done long ago. */
  given(kind: Exclude<Kind, 'inferenceServices'>): Promise<void>;
}

export interface StageSettings {
  client: Client;
  namespace: string;
  chronicle: Chronicle;
  kubelet: Kubelet;
  ward: Ward;
  begin: () => void;
  /** Whether the operator is away for long: then work ends although nobody looks. */
  isAway: () => boolean;
  /** Takes the digests of what `given` put there. */
  onGiven: (digest: string) => void;
}

export function createStage({ client, namespace, chronicle, kubelet, ward, ...on }: StageSettings): Stage {
  const held = new Set<Kind>();
  const find = (kind: Kind) => chronicle.find<Any>(RESOURCES[kind].kind, NAMES[kind]);
  const conditionOf = (kind: Kind, type: string) => find(kind)?.status?.conditions?.find((c) => c.type === type);
  const label = (kind: Kind) =>
    Object.values(COMPONENTS).find((component) => component.kind === RESOURCES[kind].kind)!.ownerLabel;
  const children = (kind: Kind, ...kinds: string[]) =>
    kinds.flatMap((child) =>
      chronicle.all<KubeObject>(child).filter((object) => object.metadata?.labels?.[label(kind)] === NAMES[kind]),
    );

  // Work takes until it was seen to run: so every state of the line is passed through, and writes have their places.
  ward.mayEnd = (pod, task: Task) => {
    const kind = TASKS[task.kind];
    if (held.has(kind)) return false;
    const job = pod.metadata?.labels?.['batch.kubernetes.io/job-name'];
    const seen = find(kind)?.status?.jobName === job && conditionOf(kind, 'Ready')?.reason === 'Running';
    return seen || on.isAway();
  };

  const stage: Stage = {
    begin: on.begin,
    async apply(kind, spec = SPECS[kind]) {
      const { group, version, kind: word } = RESOURCES[kind];
      const metadata = { name: NAMES[kind], namespace };
      await client.create(RESOURCES[kind], {
        apiVersion: `${group}/${version}`,
        kind: word,
        metadata,
        spec,
      } as KubeObject);
    },
    async patch(kind, patch) {
      const { metadata } = await client.patch<Any>(RESOURCES[kind], namespace, NAMES[kind], patch);
      await chronicle.until(
        () => (find(kind)?.metadata.generation ?? 0) >= metadata.generation,
        () => `${kind} ${NAMES[kind]} of generation ${metadata.generation}`,
        PATIENCE,
      );
    },
    async remove(kind) {
      await client.delete(RESOURCES[kind], namespace, NAMES[kind]);
      await chronicle.until(
        () => find(kind) === undefined,
        () => `${kind} ${NAMES[kind]} gone`,
        PATIENCE,
      );
    },
    async condition(kind, type, status, reason) {
      const holds = () => {
        const found = conditionOf(kind, type);
        const current = found?.observedGeneration === find(kind)?.metadata.generation;
        return found?.status === status && current && (reason === undefined || found.reason === reason);
      };
      const what = () =>
        `${kind} ${NAMES[kind]} ${type}=${status} ${reason ?? ''}; it says ${JSON.stringify(find(kind)?.status?.conditions)}`;
      await chronicle.until(holds, what, PATIENCE);
    },
    ready: (kind) => stage.condition(kind, 'Ready', 'True'),
    childless: (kind) => {
      const left = () => children(kind, 'Job', 'Deployment', 'Pod');
      const what = () =>
        `children of ${kind} gone; there are ${JSON.stringify(left().map(({ kind, metadata }) => ({ kind, metadata })))}`;
      return chronicle.until(() => left().length === 0, what, PATIENCE);
    },
    working: (kind) =>
      chronicle.until(
        () =>
          children(kind, 'Pod').some((pod) => {
            const { phase } = (pod as { status?: { phase?: string } }).status ?? {};
            return phase === 'Running' && !pod.metadata?.deletionTimestamp;
          }),
        () => `a pod of ${kind} running`,
        PATIENCE,
      ),
    hold: (kind) => void held.add(kind),
    release(kind) {
      held.delete(kind);
      kubelet.wake(namespace);
    },
    async given(kind) {
      await stage.apply(kind);
      const object = await client.get<Any>(RESOURCES[kind], namespace, NAMES[kind]);
      const status = statusGiven(kind, object, (other) => find(other));
      on.onGiven(status.artifact.digest);
      await client.replaceStatus(RESOURCES[kind], { ...object, status } as unknown as KubeObject);
      await chronicle.until(
        () => find(kind)?.status !== undefined,
        () => `status of ${kind}`,
        PATIENCE,
      );
    },
  };
  return stage;
}

/** The status of an object whose run was done before the operator that is looked at began. */
function statusGiven(kind: Exclude<Kind, 'inferenceServices'>, object: Any, find: (kind: Kind) => Any | undefined) {
  const component = ({ datasets: 'dataset', trainingJobs: 'trainingjob', modelExports: 'modelexport' } as const)[kind];
  const digest = digestOf({ component });
  const artifact = { uri: `store://fovea-store/blobs/sha256/${digest.slice(7)}`, digest, sizeBytes: 1000 };
  const consumes = { datasets: [], trainingJobs: ['datasets'], modelExports: ['trainingJobs', 'datasets'] } as const;
  const lineage = consumes[kind].map((input) => {
    const { kind: word, metadata, status } = find(input)!;
    const { name, uid, generation } = metadata;
    return { kind: word, name, uid, generation, digest: status!.artifact!.digest };
  });
  const run = inputDigest(
    component,
    object.spec,
    lineage.map((entry) => ({ kind: entry.kind, digest: entry.digest })),
  );
  const time = '2026-01-01T00:00:00Z';
  const { generation } = object.metadata;
  const condition = { observedGeneration: generation, lastTransitionTime: time, message: 'Done before.' };
  const own = {
    datasets: { samples: 10, classCount: 1 },
    trainingJobs: { checkpoints: [{ name: 'Best', epoch: 3, digest, uri: artifact.uri }] },
    modelExports: { artifacts: [{ target: 'OnnxRuntime', uri: artifact.uri, digest }] },
  };
  return {
    observedGeneration: generation,
    conditions: [{ ...condition, type: 'Ready', status: 'True', reason: 'DoneBefore' }],
    inputDigest: run,
    lineage,
    artifact,
    attempt: 1,
    history: [{ generation, inputDigest: run, artifactDigest: digest, result: 'Succeeded', startTime: time }],
    ...own[kind],
  };
}
