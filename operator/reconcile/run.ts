/** Reconciles the kinds whose work is a run: Dataset, TrainingJob, ModelExport. Observe, plan, apply, summarize. */
import type { V1Job, V1Pod } from '@kubernetes/client-node';
import type { Dataset } from '../api/dataset.ts';
import type { ModelExport } from '../api/modelexport.ts';
import { RESOURCES } from '../api/object.ts';
import type { TrainingJob } from '../api/trainingjob.ts';
import type { Client } from '../kube/client.ts';
import type { Recorder } from '../kube/events.ts';
import { JOBS, type KubeObject, PODS, type Resource, splitKey } from '../kube/resources.ts';
import { DATASET, type DatasetResolved } from '../plan/dataset.ts';
import { MODEL_EXPORT, type ModelExportResolved } from '../plan/modelexport.ts';
import { type OperatorOptions, planRun, type RunKind } from '../plan/run.ts';
import { claimName } from '../plan/store.ts';
import { type Input, inputOf, type RunObject } from '../plan/target.ts';
import { TRAINING_JOB, type TrainingJobResolved } from '../plan/trainingjob.ts';
import { hasEnded, podsOf, working } from '../plan/workers.ts';
import { createOnce, remove, writeStatus } from './apply.ts';
import type { LoadBoard } from './load.ts';
import type { ProgressBoard } from './progress.ts';
import { claimsOf, ownerKey, type View, type World } from './world.ts';

export interface Hands {
  client: Client;
  world: World;
  recorder: Recorder;
  progress: ProgressBoard;
  /** Uids of the pods of a TrainingJob that ask for a ring, by its key. */
  joined: (key: string) => ReadonlySet<string>;
  load: LoadBoard;
  options: () => OperatorOptions;
}

interface Reconciled<Object extends RunObject, Resolved> {
  kind: RunKind<Object, Resolved>;
  resource: Resource;
  objects: (world: World) => View<Object>;
  inputs: (object: Object, world: World) => Input[];
}

async function reconcile<Object extends RunObject, Resolved>(
  { kind, resource, objects, inputs }: Reconciled<Object, Resolved>,
  { client, world, recorder, progress, joined, options }: Hands,
  key: string,
): Promise<{ requeueAfterSeconds: number } | undefined> {
  const { namespace, name } = splitKey(key);
  const object = objects(world).get(namespace, name);
  // Children of a deleted object are collected by their owner references; the store is not ours to touch.
  const owner = ownerKey(kind.component, namespace, name);
  if (!object || object.metadata.deletionTimestamp) {
    progress.keep(owner, []);
    return;
  }

  const owned = <T extends V1Job | V1Pod>(view: View<T>) => view.by('owner', owner);
  const jobs = owned(world.jobs).filter((job) =>
    job.metadata?.ownerReferences?.some(({ uid }) => uid === object.metadata.uid),
  );
  const pods = await podsSeen(client, jobs, owned(world.pods));
  // Anybody may label a pod: what counts is that it is of a Job of ours.
  const workers = jobs.flatMap((job) => (job.metadata?.deletionTimestamp ? [] : working(podsOf(job, pods))));
  const uids = workers.map((pod) => pod.metadata?.uid ?? '');
  progress.keep(owner, uids);
  const claims = claimsOf(object.spec).flatMap((claim) => world.claims.get(namespace, claim) ?? []);
  const plan = planRun(kind, {
    object,
    inputs: inputs(object, world),
    jobs,
    pods,
    claim: world.claims.get(namespace, claimName(object.spec.store)),
    claims,
    events: world.eventsAbout([...claims, ...jobs] as KubeObject[]),
    progress: progress.shown(owner, uids),
    reports: progress.reports(owner),
    joined: kind.component === 'trainingjob' ? joined(key) : NOBODY,
    options: options(),
    now: new Date(),
  });

  for (const job of plan.remove) await remove(client, JOBS, job as KubeObject);
  for (const job of plan.create) {
    if (await createOnce(client, JOBS, job as KubeObject)) {
      recorder.record(object, {
        type: 'Normal',
        reason: 'RunStarted',
        message: `Job ${job.metadata?.name} carries out the run.`,
      });
    }
  }
  await writeStatus(client, resource, object, plan.status, plan.events, recorder);
  // After what is said of it: a pod that hangs is found again if we end in between.
  for (const pod of plan.restart) await remove(client, PODS, pod as KubeObject);
  return plan.lookAgainSeconds === undefined ? undefined : { requeueAfterSeconds: plan.lookAgainSeconds };
}

/**
 * The pods as far as they are known, and those of a finished Job as they are: the cache of pods may be behind that of Jobs, and a
 * result not seen yet must not be taken for one that is lost.
 */
async function podsSeen(client: Client, jobs: readonly V1Job[], cached: V1Pod[]): Promise<V1Pod[]> {
  let pods = cached;
  for (const job of jobs) {
    const known = podsOf(job, cached);
    if (!isFinished(job) || (known.length > 0 && known.every(hasEnded))) continue;
    const { namespace, name, uid } = job.metadata ?? {};
    const labelSelector = `batch.kubernetes.io/job-name=${name}`;
    const { items } = await client.list<V1Pod & KubeObject>(PODS, { namespace, labelSelector });
    const isOther = (pod: V1Pod) => pod.metadata?.ownerReferences?.every((owner) => owner.uid !== uid) ?? true;
    pods = [...pods.filter(isOther), ...podsOf(job, items)];
  }
  return pods;
}

const isFinished = ({ status }: V1Job) =>
  status?.conditions?.some(({ type, status }) => (type === 'Complete' || type === 'Failed') && status === 'True') ??
  false;

const NOBODY: ReadonlySet<string> = new Set();

const DATASET_RECONCILED: Reconciled<Dataset, DatasetResolved> = {
  kind: DATASET,
  resource: RESOURCES.datasets,
  objects: (world) => world.datasets,
  inputs: () => [],
};

const TRAINING_JOB_RECONCILED: Reconciled<TrainingJob, TrainingJobResolved> = {
  kind: TRAINING_JOB,
  resource: RESOURCES.trainingJobs,
  objects: (world) => world.trainingJobs,
  inputs: (job, world) => {
    const { namespace } = job.metadata;
    const { name } = job.spec.datasetRef;
    return [inputOf('Dataset', name, namespace, 'spec.datasetRef.name', world.datasets.get(namespace, name))];
  },
};

const MODEL_EXPORT_RECONCILED: Reconciled<ModelExport, ModelExportResolved> = {
  kind: MODEL_EXPORT,
  resource: RESOURCES.modelExports,
  objects: (world) => world.modelExports,
  inputs: (modelExport, world) => {
    const { namespace } = modelExport.metadata;
    const { name, checkpoint } = modelExport.spec.source.trainingJob!;
    const job = world.trainingJobs.get(namespace, name);
    const model = inputOf('TrainingJob', name, namespace, 'spec.source.trainingJob.name', job);
    if ('reason' in model || !job) return [model];
    const wanted = job.status?.checkpoints?.find((entry) => entry.name === (checkpoint ?? 'Best'));
    if (!wanted) {
      const message = `TrainingJob ${name} has no checkpoint ${checkpoint ?? 'Best'}; choose another in spec.source.trainingJob.checkpoint.`;
      return [{ reason: 'CheckpointNotFound', message }];
    }
    const chosen = { ...model, entry: { ...model.entry, digest: wanted.digest } };
    const reference = modelExport.spec.verify?.datasetRef;
    if (reference) {
      const dataset = world.datasets.get(namespace, reference.name);
      return [chosen, inputOf('Dataset', reference.name, namespace, 'spec.verify.datasetRef.name', dataset)];
    }
    // The dataset that the job was trained on, which its Dataset may no longer offer.
    const trainedOn = job.status?.lineage?.find((entry) => entry.kind === 'Dataset');
    return trainedOn ? [chosen, { entry: trainedOn, uri: model.uri }] : [chosen];
  },
};

export const reconcileDataset = (hands: Hands, key: string) => reconcile(DATASET_RECONCILED, hands, key);
export const reconcileTrainingJob = (hands: Hands, key: string) => reconcile(TRAINING_JOB_RECONCILED, hands, key);
export const reconcileModelExport = (hands: Hands, key: string) => reconcile(MODEL_EXPORT_RECONCILED, hands, key);
