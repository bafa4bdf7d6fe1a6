// timeout: 300
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { V1Pod } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { JOBS, type KubeObject, PODS } from '../../operator/kube/resources.ts';
import { eventually } from '../eventually.ts';
import {
  askAllTheTime,
  colours,
  condition,
  inferenceService,
  isTrue,
  type Line,
  modelExport,
  startLine,
  trainingJob,
} from './line-fixture.ts';
import { withoutRoot } from './unprivileged.ts';

await withoutRoot(import.meta.filename);

const it = suite('changes on the line');
const NAMESPACE = 'line';
let line: Line;

it.before(async () => {
  line = await startLine(`line-changes-${process.pid}`);
  await line.namespace(NAMESPACE);
  // All at once, each before what it needs.
  await line.apply(
    NAMESPACE,
    inferenceService('tints', 'tints'),
    modelExport('tints', 'tints'),
    trainingJob('tints', 'tints'),
    await colours(line, 'tints'),
  );
});

it.after(async () => {
  await line[Symbol.asyncDispose]();
});

const pods = async (selector: string) =>
  (await line.client.list<V1Pod & KubeObject>(PODS, { namespace: NAMESPACE, labelSelector: selector })).items;

/** Follows the log of the Job's pod until a line matches, and returns the match. */
async function said(job: string, what: RegExp): Promise<RegExpExecArray> {
  await eventually(async () => (await pods(`job-name=${job}`)).some((pod) => pod.status?.phase === 'Running'));
  const [kubectl, ...options] = line.kubectlArgv;
  const logs = spawn(kubectl, [...options, '-n', NAMESPACE, 'logs', '-f', `job/${job}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const seen: string[] = [];
    for await (const text of createInterface({ input: logs.stdout })) {
      const match = what.exec(text);
      if (match) return match;
      seen.push(text);
    }
    throw new Error(`the pod of ${job} ended without ${what}:\n${seen.join('\n')}`);
  } finally {
    logs.kill();
    if (logs.exitCode === null && logs.signalCode === null) await once(logs, 'exit');
  }
}

it('brings objects that were applied in the wrong order to a service that answers', async () => {
  const service = await line.until('inferenceServices', NAMESPACE, 'tints', isTrue('Ready', 'Serving'));
  await using asking = await askAllTheTime(service);
  await eventually(async () => asking.answers.good >= 5);
  assert.equal(asking.answers.bad, []);
});

it('a TrainingJob that is suspended saves its state, and goes on from there as its next attempt', async () => {
  // No checkpoint is due while it lasts: the only one is that of the suspension.
  const checkpoints = { everyEpochs: 1000, everySeconds: 86_400 };
  const [epochs, stepsPerEpoch] = [25, Math.floor(432 / 32)];
  await line.apply(NAMESPACE, trainingJob('paused', 'tints', { epochs }, { checkpoints }));
  const { jobName } = (await line.until('trainingJobs', NAMESPACE, 'paused', ({ status }) => status?.jobName)).status!;
  await said(jobName!, /epoch 2\/25/);

  await line.kubectl('-n', NAMESPACE, 'patch', 'ftj', 'paused', '--type=merge', '-p', '{"spec":{"suspend":true}}');
  const suspended = await line.until('trainingJobs', NAMESPACE, 'paused', isTrue('Suspended'));
  assert.is(condition(suspended, 'Ready')?.status, 'False');
  await eventually(async () => (await pods(`job-name=${jobName}`)).length === 0);
  const jobs = (await line.client.list(JOBS, { namespace: NAMESPACE })).items;
  assert.not.ok(jobs.some(({ metadata }) => metadata?.name === jobName));
  assert.is(suspended.status?.lastFailure, undefined);
  const { states } = await line.journal(NAMESPACE, suspended);
  assert.is(states.length, 1);
  const { step } = states[0]!;
  assert.ok(step > stepsPerEpoch && step < epochs * stepsPerEpoch, `step ${step}`);

  await line.kubectl('-n', NAMESPACE, 'patch', 'ftj', 'paused', '--type=merge', '-p', '{"spec":{"suspend":false}}');
  const resumed = await line.until(
    'trainingJobs',
    NAMESPACE,
    'paused',
    ({ status }) => status?.jobName && status.jobName !== jobName,
  );
  assert.is(resumed.status?.attempt, 2);
  assert.is((await said(resumed.status!.jobName!, /resuming .* step (\d+)/))[1], String(step));
  const { status } = await line.until('trainingJobs', NAMESPACE, 'paused', isTrue('Complete', 'Trained'));
  assert.is(status?.attempt, 2);
  assert.is(status?.progress?.epoch, epochs);
  assert.equal(
    status?.history?.map(({ result }) => result),
    ['Succeeded'],
  );
});

it('a changed recipe trains anew, and the former model answers until the new one is verified and ready', async () => {
  const service = await line.until('inferenceServices', NAMESPACE, 'tints', isTrue('Ready', 'Serving'));
  const dataset = await line.get('datasets', NAMESPACE, 'tints');
  const former = service.status!.modelDigest;
  await using asking = await askAllTheTime(service);
  await line.apply(NAMESPACE, trainingJob('tints', 'tints', { seed: 1 }));

  const training = await line.until('trainingJobs', NAMESPACE, 'tints', isTrue('Running'));
  assert.is(condition(training, 'Complete')?.reason, 'Superseded');
  const meanwhile = await line.get('inferenceServices', NAMESPACE, 'tints');
  assert.is(meanwhile.status?.modelDigest, former);
  assert.ok(isTrue('Available')(meanwhile));

  const changed = await line.until(
    'inferenceServices',
    NAMESPACE,
    'tints',
    (found) => isTrue('Ready', 'Serving')(found) && found.status?.modelDigest !== former,
  );
  const exported = await line.get('modelExports', NAMESPACE, 'tints');
  assert.ok(isTrue('Verified')(exported));
  assert.is(changed.status?.modelDigest, exported.status?.artifact?.digest);
  await eventually(async () => (await pods(changed.status!.selector!)).length === 1);
  const before = asking.answers.good;
  await eventually(async () => asking.answers.good > before + 5);
  assert.equal(asking.answers.bad, []);
  assert.equal(
    (await line.get('datasets', NAMESPACE, 'tints')).status,
    dataset.status,
    'the Dataset is not packed again',
  );
});

it('kubectl scale changes the replicas up and down, and no request is lost', async () => {
  const service = await line.until('inferenceServices', NAMESPACE, 'tints', isTrue('Ready', 'Serving'));
  await using asking = await askAllTheTime(service);
  const scale = (replicas: number) =>
    line.kubectl('-n', NAMESPACE, 'scale', 'inferenceservice', 'tints', `--replicas=${replicas}`);
  const scaled = (replicas: number) =>
    line.until(
      'inferenceServices',
      NAMESPACE,
      'tints',
      (found) => isTrue('Ready', 'Serving')(found) && found.status?.revisions?.[0]?.ready === replicas,
    );
  await scale(2);
  const two = await scaled(2);
  assert.is(two.status?.replicas, 2);
  assert.is(two.status?.modelDigest, service.status?.modelDigest);
  assert.is((await pods(two.status!.selector!)).length, 2);

  await scale(1);
  const one = await scaled(1);
  await eventually(async () => (await pods(one.status!.selector!)).length === 1);
  const before = asking.answers.good;
  await eventually(async () => asking.answers.good > before + 5);
  assert.equal(asking.answers.bad, []);
});

it.run();
