/** A trained model to a verified ONNX file. Computes in this thread: see command.ts for the process that answers meanwhile. */
import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { ExportResult, ExportTask, SplitName } from '../contract.ts';
import { type Dataset, type DecodedSplit, decodeSplit, openDataset } from '../data/dataset.ts';
import { createInference } from '../engine/inference.ts';
import { UserError } from '../errors.ts';
import { artifactOf, type Store } from '../store.ts';
import { decodeModel, type ModelFile } from '../train/model-file.ts';
import { buildModel, IMAGE, LOGITS, signatureOf } from './build.ts';
import { foldBatchNorms } from './fold.ts';
import { normalize, toChannelsFirst } from './input.ts';
import { encodeModel } from './onnx.ts';
import { Comparison, judge, type Measured, MIN_SAMPLES } from './verify.ts';

/** Pictures of one run: enough to keep every thread busy, little enough for memory at 224 pixels. */
const BATCH = 32;

/** Share of the whole that decoding the split takes in the progress, in percent. */
const DECODING_PERCENT = 30;

export interface ExportContext {
  store: Store;
  scratch: string;
  report(stage: 'decoding' | 'verifying', percent: number): void;
}

/**
 * Exports and verifies. The same model, dataset and options give the same file.
 * @returns numbers also if the verification failed: `verification.passed` is false then, and `failure` says why.
 * @throws UserError before anything is computed, if the model or the dataset cannot be used for this.
 */
export async function exportModel(task: ExportTask, { store, scratch, report }: ExportContext): Promise<ExportResult> {
  const model = decodeModel(await store.read(task.model.digest), `the model ${task.model.digest}`);
  const dataset = await openDataset(store, task.dataset.digest);
  const split = checkHeldOut(model, dataset, task);

  const folded = foldBatchNorms(model.graph, model.weights);
  const onnx = buildModel(folded.graph, folded.weights, model.card, task.model.digest, task.onnx);
  const bytes = encodeModel(onnx);

  const pictures = await decodeSplit(dataset, split, model.card.preprocessing, {
    scratch,
    onProgress: (done, total) => report('decoding', (done / total) * DECODING_PERCENT),
  });
  let measured: Measured;
  try {
    measured = await measure(model, bytes, task, pictures, (share) =>
      report('verifying', DECODING_PERCENT + share * (100 - DECODING_PERCENT)),
    );
  } finally {
    pictures.close();
  }
  const failure = judge(measured, task.verify);

  const artifact = artifactOf(await store.putBytes(bytes));
  const predictions = await store.putStream(predictionLines(pictures, measured.predicted));
  return {
    kind: 'export',
    artifact,
    verification: {
      passed: failure === undefined,
      accuracy: measured.accuracy,
      sourceAccuracy: measured.sourceAccuracy,
      dropPoints: measured.dropPoints,
      maxLogitDifference: measured.logitDifference,
      evaluated: measured.evaluated,
      sizeBytes: artifact.sizeBytes,
      predictions: predictions.digest,
    },
    ...(failure !== undefined && { failure }),
    signature: {
      inputs: onnx.graph.inputs.map(signatureOf),
      outputs: onnx.graph.outputs.map(signatureOf),
    },
  };
}

/** The split to verify on, if it can show anything about this model. */
function checkHeldOut({ card }: ModelFile, { digest, index }: Dataset, { verify }: ExportTask): SplitName {
  if (JSON.stringify(index.classes) !== JSON.stringify(card.classes)) {
    const at = index.classes.findIndex((name, i) => name !== card.classes[i]);
    const difference =
      index.classes.length !== card.classes.length
        ? `${index.classes.length} classes, and the model ${card.classes.length}`
        : `${JSON.stringify(index.classes[at])} as class ${at}, and the model ${JSON.stringify(card.classes[at])}`;
    throw new UserError(
      'ClassesDiffer',
      `dataset ${digest} has ${difference}: verify on a dataset with the classes that the model was trained on, in their order`,
    );
  }
  const split = verify.split === 'Test' ? 'test' : 'validation';
  const { samples } = index.splits[split];
  if (samples < MIN_SAMPLES) {
    const other = split === 'test' ? 'validation' : 'test';
    const more =
      index.splits[other].samples >= MIN_SAMPLES
        ? `set verify.split to ${verify.split === 'Test' ? 'Validation' : 'Test'}, which has ${index.splits[other].samples}`
        : 'give the dataset more pictures, or a larger share of them to this split';
    throw new UserError(
      'TooFewSamples',
      `the ${verify.split} split of dataset ${digest} has ${samples} pictures, and verification needs ${MIN_SAMPLES}: ${more}`,
    );
  }
  return split;
}

/** Runs every picture through the ONNX file in ONNX Runtime, and through the network as it was trained in the engine. */
async function measure(
  { card, graph, weights }: ModelFile,
  bytes: Uint8Array,
  { onnx }: ExportTask,
  pictures: DecodedSplit,
  onProgress: (share: number) => void,
): Promise<Measured> {
  const session = await InferenceSession.create(bytes, { executionProviders: ['cpu'], logSeverityLevel: 3 });
  const engine = createInference(graph, weights, card.preprocessing);
  const { count, height, width, channels, recordBytes } = pictures;
  const size = onnx.dynamicBatch ? BATCH : 1;
  const comparison = new Comparison(count, card.classes.length);
  onProgress(0);
  try {
    for (let start = 0; start < count; start += size) {
      const n = Math.min(size, count - start);
      const pixels = new Uint8Array(n * recordBytes);
      pictures.read(
        Array.from({ length: n }, (_, i) => start + i),
        pixels,
      );
      const planar = new Uint8Array(pixels.length);
      toChannelsFirst(pixels, card.preprocessing, planar);
      const shape = [n, channels, height, width];
      const image = onnx.foldNormalization
        ? new Tensor('uint8', planar, shape)
        : new Tensor('float32', normalize(planar, card.preprocessing), shape);
      const outputs = await session.run({ [IMAGE]: image });
      const logits = outputs[LOGITS]!.data as Float32Array;
      const source = engine.logits(pixels, n);
      checkFinite(source);
      comparison.add(logits, source, pictures.labels.subarray(start, start + n));
      onProgress((start + n) / count);
    }
  } finally {
    engine.release();
    await session.release();
  }
  return comparison.measured();
}

function checkFinite(logits: Float32Array): void {
  const wrong = logits.find((logit) => !Number.isFinite(logit));
  if (wrong === undefined) return;
  throw new UserError(
    'ModelNotFinite',
    `the trained model answers ${wrong} for a held-out picture: its training has diverged; train it again with a lower recipe.optimizer.learningRate or with recipe.gradientClipNorm`,
  );
}

/** One JSON line a picture (contract.ts `Verification.predictions`). */
function* predictionLines({ paths, labels }: DecodedSplit, predicted: Int32Array): Generator<Uint8Array> {
  for (const [i, path] of paths.entries()) {
    yield Buffer.from(`${JSON.stringify({ path, label: labels[i], predicted: predicted[i] })}\n`);
  }
}
