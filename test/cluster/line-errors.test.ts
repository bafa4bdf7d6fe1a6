// timeout: 300
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DEPLOYMENTS } from '../../operator/kube/resources.ts';
import {
  classify,
  colours,
  condition,
  inferenceService,
  isTrue,
  type Line,
  modelExport,
  object,
  pictures,
  startLine,
  tinted,
  trainingJob,
} from './line-fixture.ts';
import { withoutRoot } from './unprivileged.ts';

await withoutRoot(import.meta.filename);

const it = suite('errors on the line');
let line: Line;

it.before(async () => {
  line = await startLine(`line-errors-${process.pid}`);
  // What later tests need; it is made while earlier ones run.
  await line.namespace('line');
  await line.apply('line', await colours(line, 'colours'), trainingJob('model', 'colours'));
  await line.namespace('data');
});

it.after(async () => {
  await line[Symbol.asyncDispose]();
});

const dataset = (name: string, http: object, spec: object = {}) =>
  object('Dataset', name, { source: { type: 'HTTP', http }, ...spec });

it('a Dataset of too many broken pictures stalls, names them and the share that it allows, and follows a larger one', async () => {
  const http = line.serve(await pictures(10, { broken: 3 }));
  await line.apply('data', dataset('broken', http, { quarantine: { max: '5%' } }));
  const stalled = await line.until('datasets', 'data', 'broken', isTrue('Stalled', 'TooManyQuarantined'));
  const { message } = condition(stalled, 'Ready')!;
  assert.match(message, '3 of 30 files cannot be used, and quarantine.max 5% allows 1');
  for (const file of ['blue/0.png', 'blue/1.png', 'blue/2.png']) assert.match(message, file);
  assert.is(stalled.status?.artifact, undefined);
  assert.is(stalled.status?.lastFailure?.exitCode, 64);

  await line.apply('data', dataset('broken', http, { quarantine: { max: '10%' } }));
  const ready = await line.until('datasets', 'data', 'broken', isTrue('Ready'));
  assert.is(ready.status?.quarantined?.count, 3);
  assert.equal(
    ready.status?.quarantined?.first.map(({ path }) => path),
    ['blue/0.png', 'blue/1.png', 'blue/2.png'],
  );
  assert.is(ready.status?.lastFailure, undefined);
});

it('a Dataset whose file has another digest stalls with both digests, and is packed when the right one is given', async () => {
  const { url, digest } = line.serve(await pictures(10));
  const wrong = `sha256:${'0'.repeat(64)}`;
  await line.apply('data', dataset('mistaken', { url, digest: wrong }));
  const stalled = await line.until('datasets', 'data', 'mistaken', isTrue('Stalled', 'DigestMismatch'));
  const { message } = condition(stalled, 'Ready')!;
  for (const part of [url, digest, wrong]) assert.match(message, part);

  await line.apply('data', dataset('mistaken', { url, digest }));
  const { status } = await line.until('datasets', 'data', 'mistaken', isTrue('Ready', 'Packed'));
  assert.equal(
    status?.history?.map(({ result }) => result),
    ['Succeeded', 'Failed'],
  );
});

it('a Dataset stalls on a folder that is none of its classes, and names it', async () => {
  const http = line.serve(await pictures(10));
  await line.apply('data', dataset('unknown', http, { classes: ['red', 'green'] }));
  const stalled = await line.until('datasets', 'data', 'unknown', isTrue('Stalled', 'UnknownClass'));
  assert.match(condition(stalled, 'Ready')!.message, /found blue\/, not listed in classes/);
});

it('a network of a size that cannot be is refused by the API server, with the field’s path', async () => {
  const job = trainingJob('small', 'colours');
  job.spec = structuredClone(job.spec);
  const { model } = (job.spec as { trainer: { builtIn: { model: { inputSize: { height: number } } } } }).trainer
    .builtIn;
  model.inputSize.height = 4;
  const refused = await line.apply('line', job).then(
    () => '',
    (error: Error) => error.message,
  );
  assert.match(refused, /spec\.trainer\.builtIn\.model\.inputSize\.height: Invalid value: 4/);
});

it('a TrainingJob whose batch is larger than its data stalls with both numbers, and its export waits and says for what', async () => {
  await line.apply('line', modelExport('of-large', 'large'), trainingJob('large', 'colours', { batchSize: 1000 }));
  const stalled = await line.until('trainingJobs', 'line', 'large', isTrue('Stalled', 'TooFewSamples'));
  assert.match(condition(stalled, 'Ready')!.message, 'recipe.batchSize is 1000 and the training split has 432 samples');
  assert.is(condition(stalled, 'Failed')?.status, 'True');
  const waiting = await line.until('modelExports', 'line', 'of-large', (found) =>
    condition(found, 'Ready')?.message.includes('recipe.batchSize is 1000'),
  );
  assert.is(condition(waiting, 'Ready')?.reason, 'TrainingJobNotReady');
});

it('shows what a trainer pod said with kubectl logs', async () => {
  await line.until('trainingJobs', 'line', 'model', isTrue('Complete', 'Trained'));
  const { jobName } = (await line.get('trainingJobs', 'line', 'model')).status!;
  assert.match(await line.kubectl('-n', 'line', 'logs', `job/${jobName}`), /epoch 2\/2 +TrainLoss \d/);
});

it('an export that breaks its limits keeps its numbers, and its service waits until limits are given that it holds', async () => {
  await line.apply(
    'line',
    inferenceService('served', 'exact'),
    modelExport('exact', 'model', { maxLogitDifference: 1e-12 }),
  );
  const failed = await line.until('modelExports', 'line', 'exact', isTrue('Stalled', 'VerificationFailed'));
  assert.match(condition(failed, 'Ready')!.message, /on 288 pictures .*verify\.maxLogitDifference: 1e-12/);
  const { verification } = failed.status!;
  assert.is(verification?.evaluated, 288);
  assert.ok(Number(verification?.maxLogitDifference) > 1e-12);
  assert.is(failed.status?.artifact, undefined);
  assert.is(condition(failed, 'Verified')?.status, 'False');

  const waiting = await line.until('inferenceServices', 'line', 'served', (found) =>
    condition(found, 'Ready')?.message.includes('verify.maxLogitDifference'),
  );
  assert.is(condition(waiting, 'Ready')?.reason, 'ModelExportNotReady');
  assert.is(condition(waiting, 'Available')?.status, 'False');
  assert.equal((await line.client.list(DEPLOYMENTS, { namespace: 'line' })).items, []);

  await line.apply('line', modelExport('exact', 'model', { maxLogitDifference: 1e-4 }));
  const verified = await line.until('modelExports', 'line', 'exact', isTrue('Verified'));
  assert.is(verified.status?.lastFailure, undefined);
  const service = await line.until('inferenceServices', 'line', 'served', isTrue('Ready', 'Serving'));
  assert.is(service.status?.modelDigest, verified.status?.artifact?.digest);
  assert.is(typeof (await classify(service, await tinted('red', 0))), 'string');
});

it.run();
