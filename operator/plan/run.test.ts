import type { V1Job, V1PersistentVolumeClaim, V1Pod } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Dataset } from '../api/dataset.ts';
import { REQUESTED_AT_ANNOTATION } from '../manifests/labels.ts';
import { DATASET } from './dataset.ts';
import { type Observed, planRun } from './run.ts';

const it = suite('plan of a run');

const NOW = new Date('2026-01-02T03:04:05Z');
const DIGEST = `sha256:${'a'.repeat(64)}`;

function dataset(change: Partial<Dataset> = {}, generation = 1): Dataset {
  return {
    apiVersion: 'fovea.dev/v1alpha1',
    kind: 'Dataset',
    metadata: { name: 'd', namespace: 'n', uid: 'u', generation },
    spec: { source: { type: 'HTTP', http: { url: 'http://x/a.tar', digest: DIGEST } } },
    ...change,
  };
}

const claim = {
  spec: { accessModes: ['ReadWriteMany'] },
  status: { phase: 'Bound' },
} as V1PersistentVolumeClaim;

function observed(object: Dataset, change: Partial<Observed<Dataset>> = {}): Observed<Dataset> {
  return {
    object,
    inputs: [],
    jobs: [],
    pods: [],
    claim,
    progress: undefined,
    reports: new Map(),
    joined: new Set(),
    claims: [claim],
    events: [],
    options: { trainerImage: 'trainer:1', intake: undefined, gatewayUrl: 'http://g' },
    now: NOW,
    ...change,
  };
}

const plan = (object: Dataset, change: Partial<Observed<Dataset>> = {}) => planRun(DATASET, observed(object, change));

const reason = (status: Dataset['status']) => status?.conditions?.find((c) => c.type === 'Ready')?.reason;

/** The Job that the plan makes, as it is when it has ended, and its pod. */
function ended(object: Dataset, type: 'Complete' | 'Failed', message: object): { jobs: V1Job[]; pods: V1Pod[] } {
  const [made] = plan(object).create;
  const job = {
    ...made,
    metadata: { ...made.metadata, uid: 'j' },
    status: { conditions: [{ type, status: 'True' }] },
  } as V1Job;
  const terminated = { exitCode: type === 'Complete' ? 0 : 64, message: JSON.stringify(message) };
  const pod = {
    metadata: { name: 'p', ownerReferences: [{ uid: 'j' }] },
    status: {
      phase: type === 'Complete' ? 'Succeeded' : 'Failed',
      containerStatuses: [{ name: 'trainer', state: { terminated } }],
    },
  } as unknown as V1Pod;
  return { jobs: [job], pods: [pod] };
}

const result = {
  kind: 'prepare',
  artifact: { uri: 'store://blobs/sha256/b', digest: `sha256:${'b'.repeat(64)}`, sizeBytes: 1 },
  samples: 1,
  classes: [],
  classCount: 0,
  quarantined: { count: 0, first: [] },
  statistics: { mean: [0.5], std: [0.5] },
  duplicates: { count: 0, acrossSplits: 0 },
  reportURI: 'store://blobs/sha256/c',
};
const failure = { reason: 'DigestMismatch', message: 'it is another file' };

it('creates one Job, owned by the object and named by what it computes', () => {
  const { create, status } = plan(dataset());
  assert.is(create.length, 1);
  assert.match(create[0].metadata?.name ?? '', /^d-d[0-9a-f]{8}-1$/);
  assert.is(create[0].metadata?.ownerReferences?.[0].uid, 'u');
  assert.is(status.jobName, create[0].metadata?.name);
  assert.is(reason(status as Dataset['status']), 'Starting');
});

it('keeps the image and defaults a run was started with when the operator has others', () => {
  const started = plan(dataset());
  const after = plan(dataset({ status: started.status as Dataset['status'] }), {
    options: { trainerImage: 'trainer:2', intake: undefined, gatewayUrl: 'http://g' },
  });
  assert.is(after.create[0].spec?.template.spec?.containers[0].image, 'trainer:1');
});

it('puts the claim into every URI of a result', () => {
  const object = dataset();
  const { status } = plan(object, ended(object, 'Complete', { result }));
  assert.is(status.artifact?.uri, 'store://fovea-store/blobs/sha256/b');
  assert.is((status as Dataset['status'])?.reportURI, 'store://fovea-store/blobs/sha256/c');
});

it('does a finished run no second time, and changes nothing when asked again', () => {
  const object = dataset();
  const finished = plan(object, ended(object, 'Complete', { result }));
  const again = plan(dataset({ status: finished.status as Dataset['status'] }));
  assert.equal([again.create, again.remove, again.events], [[], [], []]);
  assert.equal(JSON.parse(JSON.stringify(again.status)), JSON.parse(JSON.stringify(finished.status)));
});

it('makes the next attempt when a finished Job lost its pod before the result was read', () => {
  const object = dataset();
  const { jobs } = ended(object, 'Complete', { result });
  const lost = plan(object, { jobs });
  assert.equal(lost.remove, jobs);
  const next = plan(dataset({ status: lost.status as Dataset['status'] }));
  assert.match(next.create[0].metadata?.name ?? '', /-2$/);
});

it('leaves a failed run alone until something was changed', () => {
  const object = dataset();
  const job = ended(object, 'Failed', { failure });
  const failed = plan(object, job);
  assert.is(reason(failed.status as Dataset['status']), 'DigestMismatch');
  const status = failed.status as Dataset['status'];
  const again = plan(dataset({ status }), job);
  assert.equal([again.create, again.remove, again.events], [[], [], []]);
  const jobGone = plan(dataset({ status }));
  assert.equal([jobGone.create, reason(jobGone.status as Dataset['status'])], [[], 'DigestMismatch']);
});

it('tries a failed run again when a limit was raised, which changes no number', () => {
  const object = dataset();
  const job = ended(object, 'Failed', { failure });
  const { spec } = object;
  const raised = dataset(
    {
      spec: { ...spec, resources: { limits: { memory: '8Gi' } } },
      status: plan(object, job).status as Dataset['status'],
    },
    2,
  );
  const replaced = plan(raised, job);
  assert.equal(replaced.remove, job.jobs);
  const next = plan({ ...raised, status: replaced.status as Dataset['status'] });
  assert.match(next.create[0].metadata?.name ?? '', /-2$/);
  assert.is(next.create[0].spec?.template.spec?.containers[0].resources?.limits?.memory, '8Gi');
});

it('runs an unchanged spec once more when a person asks for it', () => {
  const object = dataset();
  const finished = plan(object, ended(object, 'Complete', { result }));
  const asked = dataset({ status: finished.status as Dataset['status'] });
  asked.metadata.annotations = { [REQUESTED_AT_ANNOTATION]: '2026-01-03T00:00:00Z' };
  const { create, status } = plan(asked);
  assert.is(create.length, 1);
  assert.is(status.artifact?.uri, finished.status.artifact?.uri, 'the old result stays');
});

it('refuses a store that only one pod can use, before any pod exists', () => {
  const exclusive = { spec: { accessModes: ['ReadWriteOncePod'] } } as V1PersistentVolumeClaim;
  const { create, status } = plan(dataset(), { claim: exclusive });
  assert.equal([create, reason(status as Dataset['status'])], [[], 'StoreNotShareable']);
});

it('waits for the Job of an earlier spec to be gone before it makes the next', () => {
  const { jobs } = ended(dataset(), 'Failed', { failure });
  const changed = dataset({ spec: { source: { type: 'HTTP', http: { url: 'http://x/b.tar', digest: DIGEST } } } }, 2);
  const { create, remove, status } = plan(changed, { jobs });
  assert.equal([create, remove, reason(status as Dataset['status'])], [[], jobs, 'ReplacingRun']);
});

/** The Job that the plan makes, and its pod as the cluster has it. */
function started(object: Dataset, pod: Partial<V1Pod['status']>, name = 'p'): { jobs: V1Job[]; pods: V1Pod[] } {
  const [made] = plan(object).create;
  const child = { name, labels: made.metadata?.labels, ownerReferences: [{ uid: 'j' }], creationTimestamp: NOW };
  return {
    jobs: [{ ...made, metadata: { ...made.metadata, uid: 'j' } }],
    pods: [{ metadata: child, spec: made.spec?.template.spec, status: pod } as unknown as V1Pod],
  };
}

const unschedulable = {
  phase: 'Pending',
  conditions: [
    { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: '0/1 nodes: 1 Insufficient memory.' },
  ],
};
const running = { phase: 'Running', containerStatuses: [] };
const conditionOf = (status: Dataset['status'], type: string) => {
  const found = status?.conditions?.find((c) => c.type === type);
  return found && `${found.status} ${found.reason}`;
};

it('says what stands in the way, once, and forgets it when the pod runs', () => {
  const object = dataset();
  const stuck = plan(object, started(object, unschedulable));
  const status = stuck.status as Dataset['status'];
  assert.equal(
    [conditionOf(status, 'Ready'), conditionOf(status, 'Reconciling'), conditionOf(status, 'Stalled')],
    ['False Unschedulable', 'True Unschedulable', undefined],
  );
  assert.equal([status?.lastFailure?.reason, status?.lastFailure?.pod], ['Unschedulable', 'p']);
  assert.equal(
    stuck.events.map(({ type, reason }) => `${type} ${reason}`),
    ['Warning Unschedulable'],
  );
  const still = plan(dataset({ status }), started(object, unschedulable));
  assert.equal([still.events, still.status.lastFailure], [[], status?.lastFailure]);
  const runs = plan(dataset({ status }), started(object, running));
  assert.equal([runs.status.lastFailure, reason(runs.status as Dataset['status'])], [undefined, 'Running']);
});

it('says that a process which ended badly is tried again', () => {
  const object = dataset();
  const terminated = { exitCode: 137, reason: 'OOMKilled' };
  const oom = { phase: 'Failed', containerStatuses: [{ name: 'trainer', state: { terminated } }] };
  const { status } = plan(object, started(object, oom as never));
  assert.is(reason(status as Dataset['status']), 'OOMKilled');
  assert.match(
    status.conditions?.[0].message ?? '',
    /its limit is 2Gi. Raise spec.resources.limits.memory. It is tried again.$/,
  );
  assert.is(status.lastFailure?.exitCode, 137);
});

it('makes a new Job when the spec changes while the pods do not run, and leaves one that runs alone', () => {
  const object = dataset();
  const children = started(object, unschedulable);
  const changed = (status: Dataset['status']) =>
    dataset({ spec: { ...object.spec, resources: { requests: { memory: '64Mi' } } }, status }, 2);
  const stuck = plan(object, children).status as Dataset['status'];
  const replaced = plan(changed(stuck), children);
  assert.equal([reason(replaced.status as Dataset['status']), replaced.status.attempt], ['ReplacingRun', 2]);
  const after = changed(replaced.status as Dataset['status']);
  assert.equal(plan(after, children).remove, children.jobs);
  const next = plan(after).create[0];
  assert.match(next.metadata?.name ?? '', /-2$/);
  assert.is(next.spec?.template.spec?.containers[0].resources?.requests?.memory, '64Mi');

  const runs = started(object, running);
  const left = plan(changed(plan(object, runs).status as Dataset['status']), runs);
  assert.equal([left.remove, left.status.attempt], [[], 1]);
});

it('forgets what stood in the way of pods when the run is suspended', () => {
  const object = dataset();
  const children = started(object, unschedulable);
  const status = plan(object, children).status as Dataset['status'];
  const suspended = plan(dataset({ spec: { ...object.spec, suspend: true }, status }, 2), children);
  assert.is(suspended.status.lastFailure, undefined);
});

it('resumes as the next attempt, also if it was suspended before the status knew of the first', () => {
  const object = dataset();
  const children = started(object, { phase: 'Running' });
  const suspend = (status?: Dataset['status']) => dataset({ spec: { ...object.spec, suspend: true }, status }, 2);
  const first = plan(suspend(), children);
  assert.equal([first.remove, first.status.attempt], [[], 1], 'said first');
  const second = plan(suspend(first.status as Dataset['status']), children);
  assert.equal(second.remove, children.jobs);
  const resumed = plan(dataset({ status: second.status as Dataset['status'] }, 3));
  assert.match(resumed.create[0].metadata?.name ?? '', /-2$/);
});

it('looks again at a claim that is being provisioned', () => {
  const object = dataset();
  const pending = { ...claim, status: { phase: 'Pending' } };
  const { lookAgainSeconds } = plan(object, { ...started(object, { phase: 'Pending' }), claims: [pending] });
  assert.is(lookAgainSeconds, 10);
});

it.run();
