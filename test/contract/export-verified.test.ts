import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type DatasetIndex, ExportTask, Model, type ModelCard } from '../../trainer-image/contract.ts';
import { type PackedSample, packShards } from '../../trainer-image/data/shards.ts';
import { TrainerError } from '../../trainer-image/errors.ts';
import { run } from '../../trainer-image/export/command.ts';
import { readHeader } from '../../trainer-image/export/onnx.ts';
import { randomWeights } from '../../trainer-image/export/reference.ts';
import type { Weights } from '../../trainer-image/models/weights.ts';
import { openStore, type Store } from '../../trainer-image/store.ts';
import { encodeModel, graphOf } from '../../trainer-image/train/model-file.ts';
import { exampleCard } from './example-model.ts';

const it = suite('export');

const card = exampleCard(Model.parse({ name: 'ResNet20', inputSize: { height: 16, width: 12 } }), 'RGB');
const VALIDATION = 300;
const TEST = 255;
let folder: string;
let store: Store;
let dataset: string;
let model: string;

/** Noise with a colour of its class; not of the network's size. */
async function* samples(split: string, count: number): AsyncGenerator<PackedSample> {
  for (let i = 0; i < count; i++) {
    const label = i % card.classes.length;
    const pixels = Buffer.from(
      Array.from({ length: 20 * 20 * 3 }, (_, at) => (at * 7919 * (i + 1) + label * 30) % 256),
    );
    const bytes = await sharp(pixels, { raw: { width: 20, height: 20, channels: 3 } })
      .png()
      .toBuffer();
    const key = String(i).padStart(6, '0');
    yield { key, path: `${split}/${card.classes[label]}/${key}.png`, label, bytes, extension: 'png' };
  }
}

async function packDataset(classes: string[]): Promise<string> {
  const pack = async (split: string, count: number) => {
    const shards = await packShards(store, samples(split, count));
    return {
      samples: count,
      perClass: classes.map((_, label) => Math.ceil((count - label) / classes.length)),
      shards: shards.map(({ digest, sizeBytes, samples }) => ({ digest, sizeBytes, samples })),
    };
  };
  const index: DatasetIndex = {
    format: 'fovea.dev/dataset/v1',
    classes,
    colour: 'RGB',
    statistics: { mean: card.preprocessing.mean, std: card.preprocessing.std },
    splits: {
      train: { samples: 0, perClass: classes.map(() => 0), shards: [] },
      validation: await pack('validation', VALIDATION),
      test: await pack('test', TEST),
    },
    report: (await store.putBytes('{}')).digest,
  };
  return (await store.putBytes(JSON.stringify(index))).digest;
}

const putModel = async (of: ModelCard, weights: Weights): Promise<string> =>
  (await store.putBytes(Buffer.concat(encodeModel(of, weights)))).digest;

it.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fovea-export-'));
  store = await openStore(join(folder, 'store'));
  dataset = await packDataset(card.classes);
  model = await putModel(card, randomWeights(graphOf(card)));
});
it.after(() => rm(folder, { recursive: true }));

interface Watching {
  signal?: AbortSignal;
  onStage?: (stage: string) => void;
}

const exportWith = (options: Partial<Record<keyof ExportTask, unknown>> = {}, watching: Watching = {}) => {
  const task = { kind: 'export', run: 'test', model: { digest: model }, dataset: { digest: dataset }, ...options };
  return run(ExportTask.parse(task), {
    store,
    reporter: { report: ({ stage }) => watching.onStage?.(stage), note() {}, flush: async () => {} },
    signal: watching.signal ?? new AbortController().signal,
    scratch: folder,
    env: process.env,
  });
};

/** The TrainerError that an export ends with. */
const failureOf = async (exporting: Promise<unknown>): Promise<TrainerError> => {
  const error = await exporting.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.instance(error, TrainerError, `not a TrainerError: ${error}`);
  return error as TrainerError;
};

for (const [foldNormalization, dynamicBatch] of [
  [true, true],
  [false, false],
]) {
  it(`verifies the ONNX file against the engine on the whole split (${foldNormalization ? 'uint8' : 'normalized'} input, ${dynamicBatch ? 'open batch' : 'batch 1'})`, async () => {
    const { artifact, verification, signature, failure } = await exportWith({
      onnx: { foldNormalization, dynamicBatch },
    });
    assert.is(failure, undefined);
    assert.is(verification.passed, true);
    assert.is(verification.evaluated, VALIDATION);
    assert.ok(verification.maxLogitDifference > 0 && verification.maxLogitDifference < 1e-5);
    assert.is(verification.dropPoints, (verification.sourceAccuracy - verification.accuracy) * 100);
    assert.ok(Math.abs(verification.dropPoints) < 1);
    const n = dynamicBatch ? 'N' : '1';
    assert.equal(signature, {
      inputs: [{ name: 'image', dataType: foldNormalization ? 'UINT8' : 'FP32', shape: `${n},3,16,12` }],
      outputs: [{ name: 'logits', dataType: 'FP32', shape: `${n},7` }],
    });
    const bytes = await store.read(artifact.digest);
    assert.is(bytes.length, artifact.sizeBytes);
    assert.is(verification.sizeBytes, artifact.sizeBytes);
    assert.is(readHeader(bytes).metadata['fovea.source'], model);

    const lines = (await store.read(verification.predictions)).toString().trim().split('\n');
    const predictions = lines.map((line) => JSON.parse(line) as { path: string; label: number; predicted: number });
    assert.is(predictions.length, VALIDATION);
    assert.is(predictions[8]!.path, `validation/${card.classes[1]}/000008.png`);
    assert.is(predictions[8]!.label, 1);
    const right = predictions.filter(({ label, predicted }) => label === predicted).length;
    assert.is(verification.accuracy, right / VALIDATION);
  });
}

it('gives the same file and numbers when it is run again, and tells how far it is', async () => {
  const stages = new Set<string>();
  const first = await exportWith({}, { onStage: (stage) => stages.add(stage) });
  assert.ok(stages.has('verifying'));
  assert.equal(await exportWith(), first);
});

it('keeps the numbers of an export that is not good enough', async () => {
  const error = await failureOf(exportWith({ verify: { maxLogitDifference: 1e-12 } }));
  assert.equal([error.reason, error.exitCode], ['VerificationFailed', 64]);
  assert.match(error.message, /300 pictures of the Validation split.*verify\.maxLogitDifference: 1e-12/);
  assert.ok(error.result?.kind === 'export');
  assert.is(error.result.verification.passed, false);
  assert.is(error.result.verification.evaluated, VALIDATION);
  assert.match(error.result.failure!, 'maxLogitDifference');
});

it('refuses what it cannot verify, and says what to do', async () => {
  const other = await packDataset([...card.classes.slice(1), 'boot']);
  const diverged = randomWeights(graphOf(card));
  diverged.get('fc.bias')!.data[0] = Number.NaN;
  const table: [reason: string, message: RegExp, options: Parameters<typeof exportWith>[0]][] = [
    ['TooFewSamples', /Test split.*255 pictures.*needs 256.*Validation, which has 300/, { verify: { split: 'Test' } }],
    ['ClassesDiffer', /"bag" as class 0, and the model "ankle boot"/, { dataset: { digest: other } }],
    ['NotADataset', /no dataset/, { dataset: { digest: model } }],
    ['NotAModel', /cannot be used as a model/, { model: { digest: dataset } }],
    ['ModelNotFinite', /NaN.*diverged/, { model: { digest: await putModel(card, diverged) } }],
  ];
  for (const [reason, message, options] of table) {
    const error = await failureOf(exportWith(options));
    assert.equal([error.reason, error.exitCode], [reason, 64], error.message);
    assert.match(error.message, message);
  }
});

it('stops soon when told to, while it computes', async () => {
  const large = exampleCard(Model.parse({ name: 'ResNet18', inputSize: { height: 64, width: 64 } }), 'RGB');
  const digest = await putModel(large, randomWeights(graphOf(large)));
  const stopping = new AbortController();
  let told = 0;
  const onStage = (stage: string) => {
    if (stage !== 'verifying' || told > 0) return;
    told = performance.now();
    stopping.abort(new Error('told to stop'));
  };
  await exportWith({ model: { digest } }, { signal: stopping.signal, onStage }).then(
    () => assert.unreachable('it was done'),
    (error: Error) => assert.is(error.message, 'told to stop'),
  );
  assert.ok(performance.now() - told < 2000);
});

it.run();
