/** Training, on one page: epochs of steps, validation after each, state saved on the way. */
import canonicalize from 'canonicalize';
import type { Context } from '../command.ts';
import {
  type Metric,
  type ModelCard,
  type Preprocessing,
  type Progress,
  TrainResult,
  type TrainTask,
} from '../contract.ts';
import { type DecodedSplit, decodeSplit, openDataset } from '../data/dataset.ts';
import { loadEngine } from '../engine/tfjs.ts';
import { createTrainingEngine, type TrainingEngine } from '../engine/training.ts';
import { UserError } from '../errors.ts';
import { initializeWeights } from '../models/weights.ts';
import { resolveOptimizer } from '../optim/optimizer.ts';
import { learningRate } from '../optim/schedule.ts';
import { artifactOf, uriOf } from '../store.ts';
import { createAugmenter } from './augment.ts';
import { openJournal, type Position } from './journal.ts';
import { encodeModel, graphOf } from './model-file.ts';
import { epochOrder } from './sampler.ts';

/** What the loop tells besides progress, for whoever watches the process. */
export interface LoopContext extends Context {
  /** A state was saved at this step. */
  saved(step: number): void;
}

/** The model of a task. Interrupted, it saves its state and throws the signal's reason; called again it goes on from there. */
export async function train(task: TrainTask, context: LoopContext): Promise<TrainResult> {
  const { store, reporter, signal } = context;
  const journal = await openJournal(store, task);
  const known = await journal.finished();
  if (known) return known;

  const dataset = await openDataset(store, task.dataset.digest);
  const { classes, colour, statistics } = dataset.index;
  const preprocessing: Preprocessing = {
    format: 'fovea.dev/preprocessing/v1',
    colour,
    ...task.model.inputSize,
    kernel: 'lanczos3',
    mean: statistics.mean,
    // A channel that never changes would divide by zero; one grey level of 255 is below any real deviation.
    std: statistics.std.map((s) => Math.max(s, 1 / 255)),
  };
  const { recipe } = task;
  const samples = dataset.index.splits.train?.samples ?? 0;
  if (samples < recipe.batchSize) {
    throw new UserError(
      'TooFewSamples',
      `recipe.batchSize is ${recipe.batchSize} and the training split has ${samples} samples: lower it to at most that`,
    );
  }
  const graph = modelGraph({ model: task.model, classes, preprocessing });
  const decode = (split: 'train' | 'validation') =>
    decodeSplit(dataset, split, preprocessing, {
      scratch: context.scratch,
      signal,
      onProgress: (done, total) => reporter.report({ stage: 'decoding', percent: total ? (100 * done) / total : 100 }),
    });
  const trainSplit = await decode('train');
  const validationSplit = await decode('validation');

  loadEngine(task.threads);
  const saved = await journal.resume(reporter.note);
  const engine = createTrainingEngine(graph, saved?.weights ?? initializeWeights(graph, recipe.seed), {
    ...preprocessing,
    optimizer: resolveOptimizer(recipe.optimizer),
    labelSmoothing: recipe.loss.labelSmoothing,
    gradientClipNorm: recipe.gradientClipNorm,
  });
  if (saved) {
    engine.restoreOptimizer(saved.optimizer);
    reporter.note(`resuming from the checkpoint of step ${saved.position.step}`);
  }

  // The incomplete batch at an epoch's end is left out: batch statistics of a few samples are noise.
  const stepsPerEpoch = Math.floor(samples / recipe.batchSize);
  const steps = stepsPerEpoch * recipe.epochs;
  const position: Position = saved?.position ?? { step: 0, lossSum: 0 };
  const save = async () => {
    const state = { position, weights: engine.weights(), optimizer: engine.optimizerState() };
    await journal.save(state, task.checkpoints.keepLast);
    context.saved(position.step);
  };
  const card = (epoch: number, metrics: Metric[]): ModelCard => ({
    format: 'fovea.dev/model/v1',
    model: task.model,
    classes,
    preprocessing,
    dataset: dataset.digest,
    epoch,
    metrics,
  });

  const { height, width, channels } = graph.input;
  const augment = createAugmenter(recipe.augmentations, { height, width, channels }, recipe.seed);
  const pixels = new Uint8Array(recipe.batchSize * trainSplit.recordBytes);
  const meter = createMeter(steps, recipe.batchSize);
  let savedAt = performance.now();

  while (position.step < steps) {
    const epoch = Math.floor(position.step / stepsPerEpoch);
    const order = epochOrder(recipe.seed, epoch, samples);
    for (let i = position.step % stepsPerEpoch; i < stepsPerEpoch; i++) {
      const batch = order.subarray(i * recipe.batchSize, (i + 1) * recipe.batchSize);
      trainSplit.read(batch, pixels);
      augment(pixels, batch, epoch);
      const rate = learningRate(recipe.schedule, recipe.optimizer.learningRate, position.step, steps);
      const loss = engine.step(
        pixels,
        Int32Array.from(batch, (s) => trainSplit.labels[s]!),
        rate,
        position.step,
      );
      if (!Number.isFinite(loss)) throw nonFiniteLoss(loss, position.step, rate);
      position.step++;
      position.lossSum += loss;

      const lastOfEpoch = i === stepsPerEpoch - 1;
      const metrics = [{ name: 'TrainLoss', value: position.lossSum / (i + 1) }, ...(position.best?.metrics ?? [])];
      reporter.report(meter(epoch + 1, recipe.epochs, position.step, dropRepeated(metrics)));
      await new Promise(setImmediate); // messages and signals are taken in here; the engine itself blocks
      const due = performance.now() - savedAt > task.checkpoints.everySeconds * 1000;
      if (!lastOfEpoch && (due || signal.aborted)) {
        await save();
        savedAt = performance.now();
        signal.throwIfAborted();
      }
    }

    const metrics = [
      { name: 'TrainLoss', value: position.lossSum / stepsPerEpoch },
      ...validate(engine, validationSplit),
    ];
    const diverged = metrics.find(({ value }) => !Number.isFinite(value));
    if (diverged) throw nonFiniteLoss(diverged.value, position.step, recipe.optimizer.learningRate);
    position.lossSum = 0;
    reporter.note(
      `epoch ${epoch + 1}/${recipe.epochs}  ${metrics.map((m) => `${m.name} ${m.value.toFixed(4)}`).join('  ')}`,
    );
    reporter.report(meter(epoch + 1, recipe.epochs, position.step, metrics));
    if (!position.best || accuracyOf(metrics) >= accuracyOf(position.best.metrics)) {
      const content = encodeModel(card(epoch + 1, metrics), engine.weights());
      position.best = await journal.saveBest(epoch + 1, metrics, content);
    }
    const done = position.step === steps;
    if (done || signal.aborted || (epoch + 1) % task.checkpoints.everyEpochs === 0) {
      await save();
      savedAt = performance.now();
    }
    if (!done) signal.throwIfAborted();
  }

  const best = position.best!;
  const artifact = artifactOf(await store.putBytes(await journal.readBest(best)));
  const last = await store.putStream(
    encodeModel(card(recipe.epochs, best.epoch === recipe.epochs ? best.metrics : []), engine.weights()),
  );
  const contract = await store.putBytes(canonicalize(preprocessing)!);
  engine.release();
  trainSplit.close();
  validationSplit.close();
  const result = TrainResult.parse({
    kind: 'train',
    artifact,
    checkpoints: [
      { name: 'Best', epoch: best.epoch, digest: artifact.digest, uri: artifact.uri },
      { name: 'Last', epoch: recipe.epochs, digest: last.digest, uri: uriOf(last.digest) },
    ],
    preprocessing: { digest: contract.digest },
    epochs: recipe.epochs,
    metrics: best.metrics,
  });
  await journal.finish(result);
  return result;
}

function modelGraph(card: Parameters<typeof graphOf>[0]) {
  try {
    return graphOf(card);
  } catch (error) {
    if (error instanceof RangeError) throw new UserError('InvalidModel', error.message, { cause: error });
    throw error;
  }
}

/** Samples of one batch of validation. */
const VALIDATION_BATCH = 128;

/** Accuracy and mean loss on a split, with the running statistics; nothing if it is empty. */
function validate(engine: TrainingEngine, split: DecodedSplit): Metric[] {
  if (split.count === 0) return [];
  let loss = 0;
  let correct = 0;
  for (let start = 0; start < split.count; start += VALIDATION_BATCH) {
    const indices = Int32Array.from({ length: Math.min(VALIDATION_BATCH, split.count - start) }, (_, i) => start + i);
    const pixels = new Uint8Array(indices.length * split.recordBytes);
    split.read(indices, pixels);
    const batch = engine.evaluate(pixels, split.labels.slice(start, start + indices.length));
    loss += batch.loss;
    correct += batch.correct;
  }
  return [
    { name: 'ValidationAccuracy', value: correct / split.count },
    { name: 'ValidationLoss', value: loss / split.count },
  ];
}

/** What makes an epoch the best; without a validation split, the latest is. */
function accuracyOf(metrics: readonly Metric[]): number {
  return metrics.find((m) => m.name === 'ValidationAccuracy')?.value ?? 0;
}

/** The first metric of each name. */
function dropRepeated(metrics: readonly Metric[]): Metric[] {
  return metrics.filter(({ name }, i) => metrics.findIndex((m) => m.name === name) === i);
}

/** Progress from step counts: speed and time left by the steps of this process. */
function createMeter(steps: number, batchSize: number) {
  const started = performance.now();
  let first: number | undefined;
  return (epoch: number, epochs: number, step: number, metrics: Metric[]): Progress => {
    first ??= step - 1;
    const secondsPerStep = (performance.now() - started) / 1000 / Math.max(1, step - first);
    return {
      stage: 'training',
      percent: (100 * step) / steps,
      epoch,
      epochs,
      step,
      etaSeconds: secondsPerStep * (steps - step),
      samplesPerSecond: batchSize / secondsPerStep,
      metrics,
    };
  };
}

function nonFiniteLoss(loss: number, step: number, rate: number): UserError {
  return new UserError(
    'NonFiniteLoss',
    `the loss became ${loss} at step ${step} (learning rate ${rate.toPrecision(3)}): lower recipe.optimizer.learningRate, ` +
      'raise recipe.schedule.warmupSteps, or set recipe.gradientClipNorm (1 is usual)',
  );
}
