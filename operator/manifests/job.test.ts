import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EXIT } from '../../trainer-image/contract.ts';
import { type JobWorkers, runJob } from './job.ts';
import { childName, LOST_ANNOTATION, QUEUE_LABEL, STORE_LABEL } from './labels.ts';
import { type TrainerPod, trainerPodTemplate } from './pod.ts';
import { threads, withDefaults } from './resources.ts';

const it = suite('manifests');

const pod: TrainerPod = {
  component: 'dataset',
  owner: 'd',
  image: 'trainer:1',
  task: {
    kind: 'serve',
    name: 's',
    port: 8080,
    model: { digest: `sha256:${'a'.repeat(64)}` },
    batching: { maxBatchSize: 1, maxQueueDelayMicroseconds: 0 },
    maxBodyBytes: 1,
    drainSeconds: 1,
  },
  resources: withDefaults('serve', undefined),
  store: { claimName: 'c', path: '/team/a/', oneNode: false },
  pod: undefined,
};
const template = (change: Partial<TrainerPod> = {}) => trainerPodTemplate({ ...pod, ...change }, 'Never');
const workers: JobWorkers = { replicas: 3, lostBefore: 2, backoffLimit: 13, ttlSeconds: 60 };
const job = (change: { queue?: string } = {}) =>
  runJob({
    component: 'dataset',
    name: 'j',
    namespace: 'n',
    owner: 'd',
    ownerReference: { apiVersion: 'v1', kind: 'K', name: 'd', uid: 'u' },
    inputDigest: 'x',
    resolved: {},
    generation: 1,
    template: template(),
    workers,
    ...change,
  });

it('name a Job so that the host names of its pods fit, whatever the name of the object', () => {
  const name = childName('trainingjob', 'a'.repeat(40), `sha256:${'f'.repeat(64)}`, 9999);
  assert.ok(`${name}-0`.length <= 63, `${name} is too long`);
});

it('copy the queue to the Job, and name none where there is none', () => {
  assert.is(job({ queue: 'gpu' }).metadata?.labels?.[QUEUE_LABEL], 'gpu');
  assert.not.ok(QUEUE_LABEL in (job().metadata?.labels ?? {}));
});

it('run all workers of a Job at once, never two of one index, and remember what was lost before', () => {
  const { metadata, spec } = job();
  assert.equal([spec?.completions, spec?.parallelism, spec?.completionMode], [3, 3, 'Indexed']);
  assert.equal([spec?.podReplacementPolicy, spec?.backoffLimit, spec?.ttlSecondsAfterFinished], ['Failed', 13, 60]);
  assert.is(metadata?.annotations?.[LOST_ANNOTATION], '2');
});

it('give a pod the time to save its state that its owner asks for', () => {
  const grace = (pod?: TrainerPod['pod']) => template({ pod }).spec?.terminationGracePeriodSeconds;
  assert.equal([grace(), grace({ terminationGracePeriodSeconds: 300 })], [60, 300]);
});

it('fail a Job at once for what only the user can mend, and count no interruption', () => {
  const rules = job().spec?.podFailurePolicy?.rules ?? [];
  const actionOf = (code: number) => rules.find((rule) => rule.onExitCodes?.values.includes(code))?.action;
  assert.is(actionOf(EXIT.USER_ERROR), 'FailJob');
  assert.is(actionOf(EXIT.NO_ACCELERATOR), 'FailJob');
  assert.is(actionOf(EXIT.INTERRUPTED), 'Ignore');
  assert.is(actionOf(EXIT.FAILURE), undefined, 'is retried');
});

it('keep what the run is from what a user sets in the environment', () => {
  const { env = [] } = template({ pod: { env: [{ name: 'FOVEA_STORE', value: '/etc' }] } }).spec!.containers[0];
  const values = env.filter((variable) => variable.name === 'FOVEA_STORE').map((variable) => variable.value);
  assert.is(values.at(-1), '/store');
});

it('mount the folder of the claim that is the store, for reading only where it is only read', () => {
  const [mount] = template().spec!.containers[0].volumeMounts ?? [];
  assert.equal([mount.subPath, mount.readOnly], ['team/a', true]);
});

it('bring the pods of a ReadWriteOnce store to one node', () => {
  const affinity = template({ store: { ...pod.store, oneNode: true } }).spec?.affinity?.podAffinity;
  const [term] = affinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
  assert.equal(term.labelSelector?.matchLabels, { [STORE_LABEL]: 'c' });
  assert.is(template().spec?.affinity, undefined);
});

it('give every container requests and limits, of which what the user names wins', () => {
  const resources = withDefaults('train', { requests: { cpu: 8 } });
  assert.equal([resources.requests.cpu, resources.limits.cpu], [8, 8], 'no request above its limit');
  assert.ok(resources.requests.memory && resources.limits.memory);
  assert.is(withDefaults('train', { limits: { memory: '1Gi' } }).requests.memory, '1Gi');
});

it('give the engine as many threads as there are whole CPUs in the limit', () => {
  const limited = (cpu: string | number) => threads({ requests: {}, limits: { cpu } });
  assert.equal([limited('500m'), limited('1500m'), limited(4), limited('2')], [1, 2, 4, 2]);
});

it.run();
