import type { V1Deployment, V1PersistentVolumeClaim } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EXIT } from '../../trainer-image/contract.ts';
import type { InferenceService } from '../api/inferenceservice.ts';
import { type ObservedService, planService } from './inferenceservice.ts';
import type { Input } from './target.ts';

const it = suite('plan of a service');

const claim = { spec: { accessModes: ['ReadWriteMany'] }, status: { phase: 'Bound' } } as V1PersistentVolumeClaim;
const digestOf = (letter: string) => `sha256:${letter.repeat(64)}`;
const modelOf = (letter: string): Input => ({
  entry: { kind: 'ModelExport', name: 'e', uid: 'x', generation: 1, digest: digestOf(letter) },
  uri: `store://fovea-store/blobs/sha256/${letter.repeat(64)}`,
});

function service(
  change: Partial<InferenceService['spec']> = {},
  status?: InferenceService['status'],
): InferenceService {
  return {
    apiVersion: 'fovea.dev/v1alpha1',
    kind: 'InferenceService',
    metadata: { name: 's', namespace: 'n', uid: 'u', generation: 1 },
    spec: { model: { type: 'Export', export: { name: 'e' } }, replicas: 2, ...change },
    status,
  };
}

const plan = (object: InferenceService, change: Partial<ObservedService> = {}) =>
  planService({
    object,
    model: modelOf('a'),
    deployments: [],
    pods: [],
    claim,
    events: [],
    load: [],
    options: { trainerImage: 'trainer:1', intake: undefined, gatewayUrl: 'http://g' },
    now: new Date('2026-01-02T03:04:05Z'),
    ...change,
  });

/** A planned Deployment as the cluster has it, with so many ready replicas. */
function running(deployment: V1Deployment, ready: number, replicas = deployment.spec?.replicas): V1Deployment {
  return {
    ...deployment,
    metadata: { ...deployment.metadata, generation: 1 },
    spec: { ...deployment.spec!, replicas },
    status: { observedGeneration: 1, replicas, readyReplicas: ready },
  };
}

const condition = (status: InferenceService['status'], type: string) => {
  const found = status?.conditions?.find((c) => c.type === type);
  return found && `${found.status} ${found.reason}`;
};

/** A service whose first revision serves. */
function serving() {
  const [first] = plan(service()).create;
  const deployment = running(first, 2);
  return { deployment, status: plan(service(), { deployments: [deployment] }).status };
}

it('creates one Deployment for a model, named by what it serves', () => {
  const { create, status } = plan(service());
  assert.is(create.length, 1);
  assert.match(create[0].metadata?.name ?? '', /^s-s[0-9a-f]{8}$/);
  assert.is(create[0].spec?.replicas, 2);
  assert.is(condition(status, 'Available'), 'False NoReadyReplica');
});

it('gives a revision all traffic when every replica is ready', () => {
  const [made] = plan(service()).create;
  const half = plan(service(), { deployments: [running(made, 1)] });
  assert.is(condition(half.status, 'Ready'), 'Unknown RollingOut');
  const { status } = plan(service(), { deployments: [running(made, 2)] });
  assert.equal([condition(status, 'Ready'), condition(status, 'Available')], ['True Serving', 'True ReplicasReady']);
  assert.equal(
    status.revisions?.map((revision) => revision.trafficPercent),
    [100],
  );
});

it('keeps the old revision serving until the new one is ready, and removes it only after the traffic has moved', () => {
  const { deployment: old, status } = serving();
  const model = modelOf('b');
  const begun = plan(service({}, status), { model, deployments: [old] });
  assert.is(begun.create.length, 1);
  const fresh = begun.create[0];

  const rolling = plan(service({}, begun.status), { model, deployments: [old, running(fresh, 1)] });
  assert.equal([rolling.remove, rolling.status.modelDigest], [[], digestOf('a')]);

  const moved = plan(service({}, rolling.status), { model, deployments: [old, running(fresh, 2)] });
  assert.equal([moved.remove, moved.status.modelDigest], [[], digestOf('b')]);

  const after = plan(service({}, moved.status), { model, deployments: [old, running(fresh, 2)] });
  assert.equal(
    after.remove.map((d) => d.metadata?.name),
    [old.metadata?.name],
  );
});

it('goes on serving while its export is being made again', () => {
  const { deployment, status } = serving();
  const model = { reason: 'ModelExportNotReady', message: 'it runs again' };
  const waiting = plan(service({}, status), { model, deployments: [deployment] });
  assert.equal([waiting.create, waiting.remove, waiting.scale], [[], [], []]);
  assert.is(condition(waiting.status, 'Available'), 'True ReplicasReady');
  assert.is(waiting.status.modelDigest, digestOf('a'));
});

it('makes its Deployment again when somebody deleted it', () => {
  const { deployment, status } = serving();
  const { create } = plan(service({}, status));
  assert.is(create[0].metadata?.name, deployment.metadata?.name);
});

it('follows spec.replicas, to none and back, without a new revision', () => {
  const { deployment, status } = serving();
  const none = plan(service({ replicas: 0 }, status), { deployments: [deployment] });
  assert.equal([none.create, none.scale.map((s) => s.replicas)], [[], [0]]);
  const empty = plan(service({ replicas: 0 }, status), { deployments: [running(deployment, 0, 0)] });
  assert.is(condition(empty.status, 'Ready'), 'True ScaledToZero');
  const back = plan(service({ replicas: 3 }, empty.status), { deployments: [running(deployment, 0, 0)] });
  assert.equal([back.create, back.scale.map((s) => s.replicas)], [[], [3]]);
});

const busy = (pending: number) => [{ at: 0, pending, complete: true }];

it('with scaling BuiltIn follows the load instead of spec.replicas, starts no revision for it, and says why', () => {
  const { deployment, status } = serving();
  const scaled = { scaling: { maxReplicas: 5 } };
  const begun = plan(service(scaled, status), { deployments: [deployment] });
  assert.equal([begun.create, begun.scale, begun.status.scaling?.desired], [[], [], 2], 'as many as there are');

  const more = plan(service(scaled, begun.status), { deployments: [deployment], load: busy(17) });
  assert.equal([more.create, more.scale.map((s) => s.replicas)], [[], [5]]);
  assert.equal(more.status.scaling, {
    desired: 5,
    reason: 'pending 17 > 4 × 2',
    lastScaleTime: '2026-01-02T03:04:05Z',
  });
  assert.equal(
    more.events.map(({ reason, message }) => [reason, message]),
    [['Scaled', 'From 2 to 5 replicas: pending 17 > 4 × 2.']],
  );

  const again = plan(service(scaled, more.status), { deployments: [running(deployment, 2, 5)], load: busy(19) });
  assert.equal([again.scale, again.status.scaling, again.events], [[], more.status.scaling, []]);

  const handed = plan(service({ scaling: { mode: 'External' } }, again.status), {
    deployments: [running(deployment, 5, 5)],
  });
  assert.equal([handed.scale.map((s) => s.replicas), handed.status.scaling], [[2], undefined]);
});

it('keeps what was decided while it is suspended, and has no replica', () => {
  const { deployment, status } = serving();
  const scaling = { maxReplicas: 5 };
  const scaled = plan(service({ scaling }, status), { deployments: [deployment], load: busy(17) });
  const paused = plan(service({ scaling, suspend: true }, scaled.status), { deployments: [running(deployment, 5, 5)] });
  assert.equal([paused.scale.map((s) => s.replicas), paused.status.scaling?.desired], [[0], 5]);
});

it('gives both revisions the replicas of now while a new one comes', () => {
  const { deployment: old, status } = serving();
  const model = modelOf('b');
  const begun = plan(service({}, status), { model, deployments: [old] });
  const fresh = running(begun.create[0], 0);
  const rolling = plan(service({ replicas: 3 }, begun.status), { model, deployments: [old, fresh] });
  assert.equal(
    rolling.scale.map((s) => s.replicas),
    [3, 3],
  );
  const wide = plan(service({ replicas: 3 }, rolling.status), {
    model,
    deployments: [running(old, 3, 3), running(fresh, 2, 3)],
  });
  assert.equal([wide.remove, wide.status.modelDigest], [[], digestOf('a')], 'two of three are not enough');
});

it('says what the newest revision is made of, and keeps a history of those that took over', () => {
  const { deployment: old, status } = serving();
  assert.is(status.inputDigest, old.metadata?.annotations?.['fovea.dev/input-digest']);
  assert.equal(status.resolved, {
    image: 'trainer:1',
    batching: { maxBatchSize: 32, maxQueueDelayMicroseconds: 2000 },
  });
  assert.equal(
    status.lineage?.map(({ kind, name, digest }) => [kind, name, digest]),
    [['ModelExport', 'e', digestOf('a')]],
  );
  assert.equal(
    status.history?.map((entry) => entry.artifactDigest),
    [digestOf('a')],
  );
  const model = modelOf('b');
  const begun = plan(service({}, status), { model, deployments: [old] });
  const rolling = plan(service({}, begun.status), { model, deployments: [old, running(begun.create[0], 1)] });
  assert.is(rolling.status.history?.length, 1);
  assert.is(rolling.status.lineage?.[0]?.digest, digestOf('b'));
  const moved = plan(service({}, rolling.status), { model, deployments: [old, running(begun.create[0], 2)] });
  assert.equal(
    moved.status.history?.map((entry) => entry.artifactDigest),
    [digestOf('b'), digestOf('a')],
  );
});

it('keeps no replica while it is suspended', () => {
  const { deployment, status } = serving();
  const { scale, status: suspended } = plan(service({ suspend: true }, status), { deployments: [deployment] });
  assert.equal(
    scale.map((s) => s.replicas),
    [0],
  );
  assert.is(condition(suspended, 'Suspended'), 'True Suspended');
});

it('keeps a revision’s image when the operator has another', () => {
  const { deployment, status } = serving();
  const { create, status: after } = plan(service({}, status), {
    deployments: [deployment],
    options: { trainerImage: 'trainer:2', intake: undefined, gatewayUrl: 'http://g' },
  });
  assert.equal([create, after.revisions?.[0].image], [[], 'trainer:1']);
});

/** A pod of the revision, as its container is. */
const podOf = (deployment: V1Deployment, container: object) =>
  ({
    metadata: { name: 'p', labels: { ...deployment.spec?.template.metadata?.labels } },
    status: { containerStatuses: [{ name: 'trainer', image: 'gone:1', ready: false, ...container }] },
  }) as unknown as ObservedService['pods'][number];

it('says what a pod that does not come up waits for, once, and forgets it when all are ready', () => {
  const [made] = plan(service()).create;
  const pod = podOf(made, { state: { waiting: { reason: 'ImagePullBackOff', message: 'no such image' } } });
  const stuck = plan(service(), { deployments: [running(made, 0)], pods: [pod] });
  assert.is(condition(stuck.status, 'Ready'), 'False ImagePullBackOff');
  assert.is(condition(stuck.status, 'Reconciling'), 'True ImagePullBackOff');
  assert.match(stuck.status.lastFailure?.message ?? '', 'Correct spec.runtime.image');
  assert.equal(
    stuck.events.map(({ type, reason }) => `${type} ${reason}`),
    ['Warning ImagePullBackOff'],
  );
  const still = plan(service({}, stuck.status), { deployments: [running(made, 0)], pods: [pod] });
  assert.equal([still.events, still.status.lastFailure], [[], stuck.status.lastFailure]);
  const up = plan(service({}, stuck.status), { deployments: [running(made, 2)], pods: [] });
  assert.is(up.status.lastFailure, undefined);
});

it('stalls on a pod whose exit code says that only the user can mend it, and waits with others', () => {
  const [made] = plan(service()).create;
  const crash = (exitCode: number) =>
    podOf(made, {
      state: { waiting: { reason: 'CrashLoopBackOff' } },
      lastState: { terminated: { exitCode, message: '{"failure":{"reason":"ModelRefused","message":"no model"}}' } },
    });
  const states = [EXIT.USER_ERROR, EXIT.FAILURE].map((exitCode) => {
    const { status } = plan(service(), { deployments: [running(made, 0)], pods: [crash(exitCode)] });
    return [condition(status, 'Stalled'), condition(status, 'Reconciling')];
  });
  assert.equal(states, [
    ['True ModelRefused', undefined],
    [undefined, 'True ModelRefused'],
  ]);
});

it.run();
