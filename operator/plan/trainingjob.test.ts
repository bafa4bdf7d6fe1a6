import type { V1Job, V1PersistentVolumeClaim, V1Pod } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EXIT, type Progress, type Result } from '../../trainer-image/contract.ts';
import type { RunStatus } from '../api/status.ts';
import type { TrainingJob, TrainingJobSpec } from '../api/trainingjob.ts';
import { INDEX_ANNOTATION, LOST_ANNOTATION } from '../manifests/labels.ts';
import type { WorkerReport } from './hang.ts';
import { type Observed, type Plan, planRun } from './run.ts';
import { TRAINING_JOB } from './trainingjob.ts';

const it = suite('plan of many workers');

const DIGEST = `sha256:${'a'.repeat(64)}`;
const START = Date.parse('2026-01-02T03:00:00Z');
const claim = { spec: { accessModes: ['ReadWriteMany'] } } as V1PersistentVolumeClaim;

/** A TrainingJob of two workers, and the cluster around it as the operator sees it. */
class Scene {
  now = START;
  generation = 1;
  status: RunStatus = {};
  jobs: V1Job[] = [];
  pods: V1Pod[] = [];
  reports = new Map<string, WorkerReport>();
  joined = new Set<string>();
  spec: TrainingJobSpec = {
    datasetRef: { name: 'd' },
    trainer: { type: 'BuiltIn', builtIn: { model: { name: 'ResNet20' } } },
    workers: { replicas: 2 },
  };

  constructor(policy: TrainingJobSpec['policy'] = {}) {
    this.spec.policy = policy;
  }

  /** What would be done, without doing it. */
  plan(change: Partial<Observed<TrainingJob>> = {}): Plan {
    const lineage = { kind: 'Dataset', name: 'd', uid: 'd', generation: 1, digest: DIGEST };
    return planRun(TRAINING_JOB, {
      object: {
        apiVersion: 'fovea.dev/v1alpha1',
        kind: 'TrainingJob',
        metadata: { name: 't', namespace: 'n', uid: 'u', generation: this.generation },
        spec: this.spec,
        status: this.status as TrainingJob['status'],
      },
      inputs: [{ entry: lineage, uri: 'store://fovea-store/blobs/sha256/a' }],
      jobs: this.jobs,
      pods: this.pods,
      claim,
      claims: [claim],
      events: [],
      progress: undefined,
      reports: this.reports,
      joined: this.joined,
      options: { trainerImage: 'trainer:1', intake: undefined, gatewayUrl: 'http://g' },
      now: new Date(this.now),
      ...change,
    });
  }

  /** Carries out the plan; a Job that is removed is gone, its pods are not. */
  reconcile(): Plan {
    const plan = this.plan();
    this.status = JSON.parse(JSON.stringify(plan.status));
    this.jobs = this.jobs.filter((job) => !plan.remove.includes(job));
    for (const job of plan.create) {
      const uid = `job-${job.metadata?.name}`;
      const startTime = new Date(this.now);
      this.jobs.push({
        ...job,
        metadata: { ...job.metadata, uid, creationTimestamp: startTime },
        status: { startTime },
      });
    }
    for (const pod of plan.restart) pod.metadata!.deletionTimestamp = new Date(this.now);
    return plan;
  }

  get job(): V1Job {
    return this.jobs[0];
  }

  /** A pod of the present Job. */
  pod(rank: number, uid: string, phase = 'Running', exitCode?: number, message?: object): V1Pod {
    const owner = { apiVersion: 'batch/v1', kind: 'Job', name: this.job.metadata!.name!, uid: this.job.metadata!.uid! };
    const state = exitCode === undefined ? {} : { terminated: { exitCode, message: JSON.stringify(message ?? '') } };
    const pod = {
      metadata: { name: uid, uid, annotations: { [INDEX_ANNOTATION]: String(rank) }, ownerReferences: [owner] },
      status: { phase, podIP: `10.0.0.${rank}`, containerStatuses: [{ name: 'trainer', state }] },
    } as unknown as V1Pod;
    this.pods = [...this.pods.filter((other) => other.metadata?.uid !== uid), pod];
    return pod;
  }

  /** Both workers run. */
  running(): this {
    this.reconcile();
    this.pod(0, 'p0');
    this.pod(1, 'p1');
    this.reconcile();
    return this;
  }

  lose(count: number): void {
    this.job.status!.failed = (this.job.status!.failed ?? 0) + count;
  }

  reason(type = 'Ready'): string | undefined {
    return this.status.conditions?.find((condition) => condition.type === type)?.reason;
  }
  is(type: string): boolean {
    return this.status.conditions?.find((condition) => condition.type === type)?.status === 'True';
  }
}

it('makes a Job with an index for each worker and says how many run', () => {
  const scene = new Scene();
  scene.reconcile();
  assert.equal([scene.job.spec?.completions, scene.job.spec?.backoffLimit], [2, 12]);
  assert.equal(scene.status.workers, { desired: 2, ready: 0, lost: 0 });
  scene.pod(0, 'p0');
  scene.reconcile();
  assert.equal([scene.status.workers?.ready, scene.is('Running'), scene.reason()], [1, false, 'Starting']);
  scene.pod(1, 'p1');
  scene.reconcile();
  assert.equal([scene.status.workers?.ready, scene.is('Running'), scene.reason()], [2, true, 'Running']);
  assert.is(scene.status.startTime, '2026-01-02T03:00:00Z');
});

it('changes nothing when asked again', () => {
  const scene = new Scene().running();
  scene.lose(1);
  scene.reconcile();
  const { status } = scene;
  const again = scene.reconcile();
  assert.equal([again.events, again.create, again.remove, again.restart], [[], [], [], []]);
  assert.equal(scene.status, status);
});

it('writes the ring that all workers ask for, and leaves it out when none works', () => {
  const scene = new Scene().running();
  scene.joined = new Set(['p0']);
  scene.reconcile();
  assert.is(scene.status.ring, undefined);
  scene.joined.add('p1');
  scene.reconcile();
  assert.equal(scene.status.ring?.generation, 1);
  assert.equal(
    scene.status.ring?.members.map(({ pod }) => pod),
    ['p0', 'p1'],
  );
  scene.joined.clear();
  scene.reconcile();
  assert.is(scene.status.ring?.generation, 1);
  scene.spec.suspend = true;
  scene.reconcile();
  assert.equal(scene.status.ring, { generation: 1, members: [] });
});

it('tells of a lost worker, with its rank and exit code', () => {
  const scene = new Scene().running();
  scene.lose(1);
  scene.pod(1, 'p1', 'Failed', 137);
  const { events } = scene.reconcile();
  const lost = events.find(({ reason }) => reason === 'WorkerLost');
  assert.is(lost?.message, 'Rank 1 (pod p1) was lost, with exit code 137: 1 of at most 10 in all.');
  assert.is(scene.status.workers?.lost, 1);
});

it('does not count fewer lost workers because it sees an older Job', () => {
  const scene = new Scene().running();
  scene.lose(2);
  scene.reconcile();
  scene.job.status!.failed = 1;
  scene.reconcile();
  assert.is(scene.status.workers?.lost, 2);
});

it('goes on in a new Job after some losses, and says so before the old one is removed', () => {
  const scene = new Scene({ recreateAfter: 3 }).running();
  scene.lose(3);
  const said = scene.reconcile();
  assert.equal([said.remove, scene.reason(), scene.status.attempt], [[], 'RecreatingJob', 2]);
  const [former] = scene.jobs;
  assert.equal(scene.reconcile().remove, [former]);
  scene.reconcile();
  assert.equal([scene.jobs, scene.reason()], [[], 'ReplacingRun'], 'its pods still save their state');
  scene.pods.forEach((pod) => {
    pod.status!.phase = 'Failed';
  });
  scene.reconcile();
  assert.match(scene.job.metadata?.name ?? '', /-2$/);
  assert.is(scene.job.metadata?.annotations?.[LOST_ANNOTATION], '3');
  assert.equal([scene.status.workers?.lost, scene.status.attempt], [3, 2]);
  scene.lose(1);
  scene.reconcile();
  assert.is(scene.status.workers?.lost, 4);
});

it('counts the losses of a Job that somebody else removed', () => {
  const scene = new Scene().running();
  scene.lose(2);
  scene.reconcile();
  scene.jobs = [];
  scene.pods = [];
  scene.reconcile();
  assert.is(scene.job.metadata?.annotations?.[LOST_ANNOTATION], '2');
});

it('fails a run that lost too many workers, and removes its Job after it has said so', () => {
  const scene = new Scene({ maxWorkerLosses: 2, recreateAfter: 10 }).running();
  scene.lose(2);
  scene.reconcile();
  assert.not.ok(scene.is('Stalled'));
  scene.lose(1);
  scene.pod(1, 'p1', 'Failed', 1, { failure: { reason: 'EngineCrashed', message: 'the engine crashed' } });
  const said = scene.reconcile();
  assert.equal([said.remove, scene.reason(), scene.is('Failed')], [[], 'TooManyWorkersLost', true]);
  assert.match(scene.status.lastFailure?.message ?? '', /maxWorkerLosses is 2\. The last: the engine crashed/);
  assert.is(scene.status.history?.[0].result, 'Failed');
  assert.is(scene.reconcile().remove.length, 1);
  scene.pods = [];
  const rest = scene.reconcile();
  assert.equal([rest.create, rest.events, scene.reason()], [[], [], 'TooManyWorkersLost']);
});

it('starts to count anew when a failed run is tried again', () => {
  const scene = new Scene({ maxWorkerLosses: 0 }).running();
  scene.lose(1);
  scene.reconcile();
  scene.generation = 2;
  scene.reconcile();
  assert.equal([scene.jobs, scene.status.workers?.lost], [[], 0], 'also before its Job was removed');
  scene.pods = [];
  scene.reconcile();
  assert.match(scene.job.metadata?.name ?? '', /-2$/);
  assert.equal([scene.job.metadata?.annotations?.[LOST_ANNOTATION], scene.is('Stalled')], ['0', false]);
});

it('starts to count anew also when the Job of the failed run is gone', () => {
  const scene = new Scene({ maxWorkerLosses: 0 }).running();
  scene.lose(1);
  scene.reconcile();
  scene.reconcile();
  assert.equal([scene.jobs, scene.status.workers?.lost], [[], 1]);
  scene.pods = [];
  scene.generation = 2;
  scene.reconcile();
  assert.is(scene.job.metadata?.annotations?.[LOST_ANNOTATION], '0');
});

it('fails a run whose workers do not all start in time, with what keeps them', () => {
  const scene = new Scene({ startTimeoutSeconds: 60 });
  scene.reconcile();
  scene.pod(0, 'p0');
  const pending = scene.pod(1, 'p1', 'Pending');
  pending.status!.conditions = [
    { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: 'Insufficient cpu' },
  ];
  scene.now += 59_000;
  assert.is(scene.reconcile().lookAgainSeconds, 1);
  assert.is(scene.reason(), 'Unschedulable');
  scene.now += 1000;
  scene.reconcile();
  assert.is(scene.reason(), 'StartTimeout');
  assert.match(scene.status.lastFailure?.message ?? '', /1 of 2 workers run .* 60 s.*Insufficient cpu/);
});

it('gives a worker that replaces a lost one the same time to start', () => {
  const scene = new Scene({ startTimeoutSeconds: 60 }).running();
  scene.now += 600_000;
  scene.lose(1);
  scene.pod(1, 'p1', 'Failed', 1);
  scene.reconcile();
  scene.now += 59_000;
  scene.reconcile();
  assert.not.ok(scene.is('Stalled'));
  scene.now += 1000;
  scene.reconcile();
  assert.is(scene.reason(), 'StartTimeout');
});

it('counts no time while a queue holds the Job back', () => {
  const scene = new Scene({ startTimeoutSeconds: 60, activeDeadlineSeconds: 60 });
  scene.reconcile();
  scene.job.spec!.suspend = true;
  scene.job.status = {};
  scene.now += 600_000;
  scene.reconcile();
  assert.equal([scene.reason(), scene.status.startTime], ['Queued', undefined]);
});

it('fails a run that is not done in time, over all attempts, and counts anew when it is resumed', () => {
  const scene = new Scene({ activeDeadlineSeconds: 100, recreateAfter: 1 }).running();
  scene.now += 60_000;
  scene.lose(1);
  scene.reconcile();
  scene.reconcile();
  scene.pods = [];
  scene.running();
  assert.match(scene.job.metadata?.name ?? '', /-2$/);
  assert.is(scene.plan().lookAgainSeconds, 40);
  scene.spec.suspend = true;
  scene.reconcile();
  scene.pods = [];
  scene.now += 600_000;
  scene.spec.suspend = false;
  scene.running();
  assert.match(scene.job.metadata?.name ?? '', /-3$/);
  scene.now += 99_000;
  scene.reconcile();
  assert.not.ok(scene.is('Stalled'));
  scene.now += 1000;
  scene.reconcile();
  assert.is(scene.reason(), 'DeadlineExceeded');
});

it('goes on as the next attempt when it is resumed, with the losses of before', () => {
  const scene = new Scene().running();
  scene.lose(1);
  scene.reconcile();
  scene.spec.suspend = true;
  assert.is(scene.reconcile().remove.length, 1);
  assert.equal(scene.status.workers, { desired: 2, ready: 0, lost: 1 });
  scene.pods = [];
  scene.spec.suspend = false;
  scene.reconcile();
  assert.match(scene.job.metadata?.name ?? '', /-2$/);
  assert.is(scene.job.metadata?.annotations?.[LOST_ANNOTATION], '1');
});

it('names the worker that failed, and not those that were told to stop for it', () => {
  const scene = new Scene().running();
  scene.pod(0, 'p0', 'Failed', EXIT.INTERRUPTED, { failure: { reason: 'Interrupted', message: 'told to stop' } });
  scene.pod(1, 'p1', 'Failed', EXIT.USER_ERROR, { failure: { reason: 'NonFiniteLoss', message: 'the loss is NaN' } });
  scene.job.status!.conditions = [{ type: 'Failed', status: 'True' }] as never;
  scene.reconcile();
  const { lastFailure } = scene.status;
  assert.equal([lastFailure?.reason, lastFailure?.pod, lastFailure?.rank], ['NonFiniteLoss', 'p1', 1]);
});

it('takes the result when all workers are done, and says that none runs', () => {
  const scene = new Scene().running();
  const result: Result = {
    kind: 'train',
    artifact: { uri: 'store://blobs/sha256/b', digest: DIGEST, sizeBytes: 1 },
    checkpoints: [],
    preprocessing: { digest: DIGEST },
    epochs: 1,
    metrics: [],
  };
  scene.pod(0, 'p0', 'Succeeded', 0, { result });
  scene.reconcile();
  assert.ok(scene.is('Running'), 'the other one is still at it');
  scene.pod(1, 'p1', 'Succeeded', 0, { result });
  scene.job.status!.conditions = [{ type: 'Complete', status: 'True' }] as never;
  scene.now += 60_000;
  scene.reconcile();
  assert.ok(scene.is('Complete'));
  assert.equal(scene.status.workers, { desired: 2, ready: 0, lost: 0 });
  assert.is(scene.status.history?.[0].startTime, '2026-01-02T03:00:00Z');
});

/** Both have run for 20 minutes and stand still for 15; rank 1 is the one that the other waits for. */
function hung(action: 'RestartWorker' | 'Fail' | 'Report'): Scene {
  const scene = new Scene({ hang: { action } }).running();
  scene.now += 1_200_000;
  const report = (activity: Progress['activity']): WorkerReport => ({
    progress: { stage: 'training', percent: 1, step: 7, activity },
    ageSeconds: 1,
    knownSeconds: 1000,
    standingSeconds: 900,
  });
  scene.reports.set('p0', report('Exchanging')).set('p1', report('Computing'));
  return scene;
}

it('replaces the pod of a worker that hangs, once', () => {
  const scene = hung('RestartWorker');
  const plan = scene.reconcile();
  assert.equal(
    plan.restart.map((pod) => pod.metadata?.name),
    ['p1'],
  );
  assert.equal([scene.reason(), plan.events.map(({ reason }) => reason)], ['Hung', ['Hung']]);
  const next = scene.reconcile();
  assert.equal([next.restart, scene.reason()], [[], 'Starting'], 'it is on its way out');
});

it('replaces it after a restart of the operator that came before the pod was deleted', () => {
  const scene = hung('RestartWorker');
  scene.status = JSON.parse(JSON.stringify(scene.plan().status));
  const plan = scene.reconcile();
  assert.equal([plan.restart.length, plan.events], [1, []]);
});

it('fails a run that hangs, or only says so, by policy', () => {
  const fails = hung('Fail');
  fails.reconcile();
  assert.equal([fails.reason(), fails.is('Stalled'), fails.status.lastFailure?.rank], ['Hung', true, 1]);
  const reports = hung('Report');
  const plan = reports.reconcile();
  assert.equal([plan.restart, reports.reason(), reports.is('Running')], [[], 'Hung', true]);
  reports.reports.get('p1')!.standingSeconds = 0;
  reports.reports.get('p0')!.standingSeconds = 0;
  reports.reconcile();
  assert.is(reports.reason(), 'Running', 'it goes on');
});

it('asks an engine for its stack before it is taken to hang', () => {
  const scene = new Scene({ hang: { timeoutSeconds: 100 } });
  scene.reconcile();
  const env = scene.job.spec?.template.spec?.containers[0].env?.find(({ name }) => name === 'FOVEA_TASK');
  const task = JSON.parse(env?.value ?? '');
  assert.equal([task.workers, task.stackAfterSeconds], [2, 50]);
});

it.run();
