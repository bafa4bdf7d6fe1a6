import type { CoreV1Event, V1Deployment, V1Job, V1PersistentVolumeClaim, V1Pod } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EXIT } from '../../trainer-image/contract.ts';
import type { Component } from '../manifests/labels.ts';
import {
  asBefore,
  isNews,
  isTerminal,
  jobFailure,
  jobObstacle,
  leftOf,
  podFailure,
  podObstacle,
  type RunFailure,
  remember,
  revisionObstacle,
} from './failure.ts';

const it = suite('failures of children');

const NOW = new Date('2026-01-02T03:04:05Z');
const ago = (seconds: number) => new Date(NOW.getTime() - seconds * 1000).toISOString() as unknown as Date;

interface Shape {
  component?: Component;
  index?: number;
  /** Seconds since it was made. */
  age?: number;
  phase?: string;
  state?: object;
  lastState?: object;
  ready?: boolean;
  deleting?: boolean;
  conditions?: object[];
  reason?: string;
  message?: string;
}

function pod(name: string, shape: Shape = {}): V1Pod {
  const { component = 'trainingjob', index = 0, age = 10, phase = 'Pending', deleting } = shape;
  return {
    metadata: {
      name,
      namespace: 'n',
      creationTimestamp: ago(age),
      labels: { 'app.kubernetes.io/component': component },
      annotations: { 'batch.kubernetes.io/job-completion-index': String(index) },
      ...(deleting ? { deletionTimestamp: ago(1) } : {}),
    },
    spec: {
      nodeName: 'node-1',
      nodeSelector: { gpu: 'yes' },
      containers: [{ name: 'trainer', resources: { requests: { memory: '2Gi' }, limits: { memory: '2Gi' } } }],
      volumes: [{ name: 'store', persistentVolumeClaim: { claimName: 'fovea-store' } }],
    },
    status: {
      phase,
      reason: shape.reason,
      message: shape.message,
      conditions: shape.conditions as never,
      containerStatuses: [
        {
          name: 'trainer',
          image: 'gone:1',
          imageID: '',
          ready: shape.ready ?? false,
          restartCount: 0,
          state: shape.state ?? {},
          lastState: shape.lastState,
        } as never,
      ],
    },
  };
}

const ended = (name: string, exitCode: number, message: string | object = '', shape: Shape & { why?: string } = {}) =>
  pod(name, {
    phase: 'Failed',
    ...shape,
    state: {
      terminated: {
        exitCode,
        reason: shape.why ?? 'Error',
        message: typeof message === 'string' ? message : JSON.stringify(message),
      },
    },
  });
const waits = (name: string, reason: string, message: string, shape: Shape = {}) =>
  pod(name, { ...shape, state: { waiting: { reason, message } } });
const unscheduled = (name: string, message: string, shape: Shape = {}) =>
  pod(name, { ...shape, conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message }] });
const running = (name: string, shape: Shape & { since?: number } = {}) =>
  pod(name, { phase: 'Running', ...shape, state: { running: { startedAt: ago(shape.since ?? 5) } } });

const job = (completions = 1): V1Job => ({
  metadata: { name: 'a-t0-1', uid: 'j', labels: { 'app.kubernetes.io/component': 'trainingjob' } },
  spec: { completions, template: {} },
});
const refused = (why: string, age = 1): CoreV1Event =>
  ({
    involvedObject: { kind: 'Job', uid: 'j' },
    reason: 'FailedCreate',
    message: `Error creating: pods "a-t0-1-0-x" is forbidden: ${why}`,
    lastTimestamp: ago(age),
  }) as never;
const QUOTA = 'exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1';
const claim: V1PersistentVolumeClaim = {
  metadata: { name: 'fovea-store', uid: 'c', creationTimestamp: ago(60) },
  spec: { resources: { requests: { storage: '1Gi' } } },
  status: { phase: 'Bound' },
};
const obstacle = (of: V1Job, pods: V1Pod[], events: CoreV1Event[] = [], claims = [claim]) =>
  jobObstacle(of, { pods, claims, events }, NOW);

it('say of each end of a process what it was and what to change', () => {
  const failure = (reason: string, message: string) => ({ failure: { reason, message } });
  const cases: [V1Pod, string, string[]][] = [
    [
      ended('p', 137, '', { why: 'OOMKilled' }),
      'OOMKilled',
      ['Pod p (rank 0) ran out of memory: its limit is 2Gi', 'Raise spec.workers.resources.limits.memory'],
    ],
    [
      ended('p', 137, '', { why: 'OOMKilled', component: 'dataset' }),
      'OOMKilled',
      ['Pod p ran out of memory', 'Raise spec.resources.limits.memory'],
    ],
    [
      ended('p', EXIT.FAILURE, failure('StoreFull', 'no space left at /store (ENOSPC)')),
      'StoreFull',
      [
        'Pod p (rank 0): no space left at /store (ENOSPC). The store is PersistentVolumeClaim fovea-store, of 1Gi: raise its spec.resources.requests.storage',
      ],
    ],
    [
      ended('p', EXIT.NO_ACCELERATOR),
      'NoAccelerator',
      ['Pod p (rank 0) was to use an accelerator and found none', 'the driver of node node-1'],
    ],
    [ended('p', EXIT.USER_ERROR, failure('TooFewSamples', 'say more')), 'TooFewSamples', ['say more']],
    [ended('p', 1, 'one\ntwo\n'), 'Error', ['Pod p (rank 0) ended with exit code 1. Its last lines: one\ntwo']],
    [ended('p', 139, ''), 'Error', ['exit code 139 (SIGSEGV) and no word; see kubectl logs -n n p']],
    [ended('p', 1, '{"failure": cut off'), 'Error', ['Its last lines: {"failure": cut off']],
    [
      pod('p', { phase: 'Failed', reason: 'Evicted', message: 'The node was low on resource: memory.' }),
      'Evicted',
      ['Pod p (rank 0) was evicted by its node: The node was low on resource: memory.'],
    ],
    [
      pod('p', { phase: 'Failed', reason: 'UnexpectedAdmissionError', message: 'no device' }),
      'UnexpectedAdmissionError',
      ['Pod p (rank 0) failed: no device'],
    ],
  ];
  for (const [of, reason, parts] of cases) {
    const found = podFailure(of, [claim]);
    assert.is(found?.reason, reason);
    for (const part of parts) assert.ok(found?.message.includes(part), `${found?.message}\nlacks ${part}`);
  }
});

it('keep the end of a program’s last lines', () => {
  const found = podFailure(ended('p', 1, `${'x'.repeat(3000)} the cause`));
  assert.match(found?.message ?? '', /x the cause$/);
  assert.ok((found?.message.length ?? 0) < 1024);
});

it('count no end that was asked for, and none that a node or another pod is to blame for', () => {
  const disrupted = [{ type: 'DisruptionTarget', status: 'True', reason: 'PreemptionByScheduler' }];
  assert.is(podFailure(ended('p', EXIT.INTERRUPTED)), undefined);
  assert.is(podFailure(ended('p', EXIT.DONE)), undefined);
  assert.is(podFailure(ended('p', 137, '', { conditions: disrupted })), undefined);
});

it('are told apart by the exit code: what only the user can mend, and what is tried again', () => {
  const terminal = (exitCode?: number) => isTerminal({ reason: 'R', message: '', exitCode });
  assert.equal([EXIT.USER_ERROR, EXIT.NO_ACCELERATOR, EXIT.FAILURE, 137, undefined].map(terminal), [
    true,
    true,
    false,
    false,
    false,
  ]);
});

it('say of each thing a pod waits for what to change', () => {
  const cases: [V1Pod, string, string[]][] = [
    [
      unscheduled(
        'p',
        '0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory. preemption: 0/3 nodes are available.',
      ),
      'Unschedulable',
      [
        'Pod p (rank 0) cannot be scheduled: 0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory. Lower',
        'Lower spec.workers.resources.requests.cpu',
        'It asks for memory 2Gi: lower spec.workers.resources.requests.memory, or add a node',
      ],
    ],
    [
      unscheduled('p', "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
      'Unschedulable',
      ['No node has the labels gpu=yes: correct spec.workers.pod.nodeSelector'],
    ],
    [
      unscheduled('p', '0/1 nodes are available: 1 node(s) had untolerated taint {gpu: }.'),
      'Unschedulable',
      ['untolerated taint {gpu: }', 'spec.workers.pod.tolerations'],
    ],
    [
      unscheduled('p', "0/2 nodes are available: 2 node(s) didn't match pod affinity rules."),
      'Unschedulable',
      ['use a ReadWriteMany claim'],
    ],
    [
      unscheduled('p', 'persistentvolumeclaim "fovea-store" not found'),
      'Unschedulable',
      ['Create PersistentVolumeClaim fovea-store, or name another in spec.store.pvc.claimName'],
    ],
    [
      waits('p', 'ErrImagePull', 'not found'),
      'ImagePullBackOff',
      [
        "Pod p (rank 0) cannot pull image gone:1: not found. Correct the operator's FOVEA_TRAINER_IMAGE",
        'spec.workers.pod.imagePullSecrets',
      ],
    ],
    [
      waits('p', 'InvalidImageName', 'x', { component: 'inferenceservice' }),
      'InvalidImageName',
      ['Image gone:1 of Pod p has no valid name: correct spec.runtime.image'],
    ],
    [
      waits('p', 'CreateContainerConfigError', 'secret "keys" not found'),
      'CreateContainerConfigError',
      ['secret "keys" not found. Create it, or correct spec.workers.pod.env'],
    ],
  ];
  for (const [of, reason, parts] of cases) {
    const found = podObstacle(of);
    assert.is(found?.reason, reason);
    for (const part of parts) assert.ok(found?.message.includes(part), `${found?.message}\nlacks ${part}`);
  }
  assert.is(podObstacle(waits('p', 'ContainerCreating', '')), undefined);
});

it('say the same of an image whether it is being pulled or waits to be pulled again', () => {
  const first = podObstacle(waits('p', 'ErrImagePull', 'no such image'))!;
  const backOff = podObstacle(
    waits('p', 'ImagePullBackOff', 'Back-off pulling image "gone:1": ErrImagePull: no such image'),
  );
  assert.equal(backOff, first);
  const silent = podObstacle(waits('p', 'ImagePullBackOff', 'Back-off pulling image "gone:1"'))!;
  assert.equal(asBefore(remember(undefined, first, NOW), silent), first);
});

it('show a refusal of pods only of an index that has no pod since', () => {
  assert.is(obstacle(job(), [], [refused(QUOTA)])?.reason, 'QuotaExceeded');
  assert.is(obstacle(job(2), [running('a')], [refused(QUOTA)])?.reason, 'QuotaExceeded');
  const two = [running('a'), pod('b', { index: 1 })];
  assert.is(obstacle(job(2), two, [refused(QUOTA)]), undefined, 'both pods are made');
  const crashed = ended('a', 1, 'oh', { age: 5 });
  assert.is(obstacle(job(), [crashed], [refused(QUOTA, 30)])?.reason, 'Error', 'the refusal was before the pod');
  assert.is(obstacle(job(), [crashed], [refused(QUOTA, 3)])?.reason, 'QuotaExceeded', 'its successor is refused');
  const other = { ...refused(QUOTA), involvedObject: { kind: 'Job', uid: 'x' } };
  assert.is(obstacle(job(), [], [other]), undefined, 'another Job');
});

it('show of several pods the one that fails, with its name and rank', () => {
  const found = obstacle(job(3), [
    running('a'),
    running('b', { index: 1 }),
    waits('c', 'ErrImagePull', 'x', { index: 2 }),
  ]);
  assert.equal([found?.pod, found?.rank], ['c', 2]);
  assert.match(found?.message ?? '', 'Pod c (rank 2)');
});

it('show first what no retry helps', () => {
  const pods = [
    unscheduled('a', 'no nodes available'),
    ended('b', EXIT.USER_ERROR, { failure: { reason: 'TooFewSamples', message: 'm' } }, { index: 1 }),
  ];
  assert.is(obstacle(job(2), pods)?.reason, 'TooFewSamples');
});

it('show a process’s end until its successor runs', () => {
  const crashed = ended('a', 1, 'oh', { age: 60 });
  assert.is(obstacle(job(), [crashed])?.reason, 'Error');
  assert.is(obstacle(job(), [pod('b'), crashed])?.reason, 'Error');
  assert.is(obstacle(job(), [running('b'), crashed]), undefined);
  const drained = ended('b', EXIT.INTERRUPTED, '', { age: 30 });
  assert.is(obstacle(job(), [pod('c', { age: 1 }), drained, crashed]), undefined, 'what came after it ran');
});

it('show a claim without a volume instead of the pods that wait for it', () => {
  const pending = { ...claim, status: { phase: 'Pending' } };
  const event = {
    involvedObject: { uid: 'c' },
    reason: 'FailedBinding',
    message: 'no storage class is set',
    lastTimestamp: ago(1),
  } as never;
  const pods = [unscheduled('a', 'pod has unbound immediate PersistentVolumeClaims')];
  assert.is(obstacle(job(), pods, [event], [pending])?.reason, 'ClaimPending');
  assert.is(obstacle(job(), pods, [], [pending])?.reason, 'Unschedulable');
});

it('name as the cause of a Job’s end the pod that could not be helped, not those that were stopped for it', () => {
  const pods = [
    ended('stopped', 137, '', { age: 1, index: 1, deleting: true }),
    ended('lost', 1, 'oh', { age: 2, index: 2 }),
    ended('cause', EXIT.USER_ERROR, { failure: { reason: 'TooFewSamples', message: 'm' } }, { age: 9 }),
  ];
  assert.is(jobFailure(job(3), pods).pod, 'cause');
  assert.is(jobFailure(job(3), pods.slice(0, 2)).pod, 'lost');
  const condition = { type: 'Failed', status: 'True', reason: 'BackoffLimitExceeded', message: 'too often' };
  assert.is(jobFailure({ ...job(), status: { conditions: [condition] } }, []).reason, 'BackoffLimitExceeded');
});

it('show why a revision’s pods are refused, cannot start or crash, until they are ready', () => {
  const deployment: V1Deployment = { metadata: { labels: { 'app.kubernetes.io/component': 'inferenceservice' } } };
  const look = (of: V1Deployment, ...pods: V1Pod[]) => revisionObstacle(of, { pods, claims: [], events: [] }, NOW);
  const condition = {
    type: 'ReplicaFailure',
    status: 'True',
    reason: 'FailedCreate',
    message: `pods "x" is forbidden: ${QUOTA}`,
  };
  assert.is(look({ ...deployment, status: { conditions: [condition] } })?.reason, 'QuotaExceeded');
  const terminated = { exitCode: EXIT.USER_ERROR, message: '{"failure":{"reason":"ModelRefused","message":"m"}}' };
  const crash: Shape = {
    component: 'inferenceservice',
    phase: 'Running',
    state: { waiting: { reason: 'CrashLoopBackOff', message: 'back-off 10s' } },
    lastState: { terminated },
  };
  const found = look(deployment, pod('p', crash));
  assert.is(found?.reason, 'ModelRefused');
  assert.ok(isTerminal(found as RunFailure));
  assert.is(
    look(deployment, pod('p', { ...crash, state: { running: {} } }))?.reason,
    'ModelRefused',
    'it runs once more',
  );
  assert.is(look(deployment, pod('p', { ...crash, state: { running: {} }, ready: true })), undefined);
});

it('are remembered with the time they were first seen', () => {
  const found: RunFailure = { reason: 'QuotaExceeded', message: 'm'.repeat(2000) };
  const first = remember(undefined, found, NOW);
  assert.equal([first.message.length, first.time], [1024, '2026-01-02T03:04:05Z']);
  const later = new Date(NOW.getTime() + 60_000);
  assert.is(remember(first, { ...found, message: 'other numbers' }, later).time, first.time);
  assert.is(remember(first, { reason: 'Unschedulable', message: '' }, later).time, '2026-01-02T03:05:05Z');
});

it('are over when all pods run, and a crash when they have run for a while', () => {
  const obstacleBefore = remember(undefined, { reason: 'QuotaExceeded', message: '' }, NOW);
  assert.is(leftOf(obstacleBefore, job(2), [running('a')], NOW), obstacleBefore);
  assert.is(leftOf(obstacleBefore, job(2), [running('a'), running('b', { index: 1 })], NOW), undefined);
  const crash = remember(undefined, { reason: 'OOMKilled', message: '', pod: 'a', exitCode: 137 }, NOW);
  assert.is(leftOf(crash, job(), [running('b', { since: 60 })], NOW), crash);
  assert.is(leftOf(crash, job(), [running('b', { since: 601 })], NOW), undefined);
});

it('are told once each, and once a process', () => {
  const waiting: RunFailure = { reason: 'Unschedulable', message: '', pod: 'a' };
  const before = remember(undefined, waiting, NOW);
  assert.equal([isNews(undefined, waiting), isNews(before, { ...waiting, pod: 'b' })], [true, false]);
  const crash: RunFailure = { reason: 'Error', message: '', pod: 'a', exitCode: 1 };
  const crashed = remember(undefined, crash, NOW);
  assert.equal([isNews(crashed, crash), isNews(crashed, { ...crash, pod: 'b' })], [false, true]);
});

it.run();
