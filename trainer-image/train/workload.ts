/** What is trained and on what: the opened dataset, the network, and the batches of each step. */
import type { Context } from '../command.ts';
import type { Metric, ModelCard, Preprocessing, TrainTask } from '../contract.ts';
import { type DecodedSplit, decodeSplit, openDataset } from '../data/dataset.ts';
import { createTrainingEngine, type TrainingEngine } from '../engine/training.ts';
import { UserError } from '../errors.ts';
import { initializeWeights } from '../models/weights.ts';
import { resolveOptimizer } from '../optim/optimizer.ts';
import { createAugmenter } from './augment.ts';
import { shareOf } from './exchange.ts';
import { graphOf } from './model-file.ts';
import { epochOrder } from './sampler.ts';
import type { TrainingState } from './state-file.ts';

export interface Batch {
  /** uint8 `[n, H, W, C]`, augmented. Shared between batches. */
  pixels: Uint8Array;
  /** `[n]` */
  labels: Int32Array;
  /** Samples of all shares together. */
  batchSize: number;
}

export interface Workload {
  preprocessing: Preprocessing;
  stepsPerEpoch: number;
  validation: DecodedSplit;
  /** The state before the first step. */
  firstState(): TrainingState;
  /** A fresh engine with this state. TensorFlow must be loaded. */
  createEngine(state: TrainingState): TrainingEngine;
  /** One rank's share of the batch of a step (from 0, of the whole run). */
  batch(step: number, rank: number, world: number): Batch;
  card(epoch: number, metrics: Metric[]): ModelCard;
  close(): void;
}

/** @throws UserError TooFewSamples, BatchTooSmall or InvalidModel; as the dataset does */
export async function openWorkload(task: TrainTask, { store, reporter, scratch, signal }: Context): Promise<Workload> {
  const { recipe } = task;
  const { batchSize } = recipe;
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
  const samples = dataset.index.splits.train?.samples ?? 0;
  if (samples < batchSize) {
    throw new UserError(
      'TooFewSamples',
      `recipe.batchSize is ${batchSize} and the training split has ${samples} samples: lower it to at most that`,
    );
  }
  if (batchSize < task.workers) {
    throw new UserError(
      'BatchTooSmall',
      `recipe.batchSize is ${batchSize} for ${task.workers} workers: raise it to at least one sample a worker, or take fewer workers`,
    );
  }
  const graph = modelGraph({ model: task.model, classes, preprocessing });
  const decode = (split: 'train' | 'validation') =>
    decodeSplit(dataset, split, preprocessing, {
      scratch,
      signal,
      onProgress: (done, total) => reporter.report({ stage: 'decoding', percent: total ? (100 * done) / total : 100 }),
    });
  const train = await decode('train');
  const validation = await decode('validation');

  const { height, width, channels } = graph.input;
  const augment = createAugmenter(recipe.augmentations, { height, width, channels }, recipe.seed);
  // The incomplete batch at an epoch's end is left out: batch statistics of a few samples are noise.
  const stepsPerEpoch = Math.floor(samples / batchSize);
  const memory = new Uint8Array(batchSize * train.recordBytes);
  let order: { epoch: number; samples: Uint32Array } | undefined;

  return {
    preprocessing,
    stepsPerEpoch,
    validation,
    firstState: () => ({
      position: { step: 0, epoch: 0, lossSum: 0 },
      weights: initializeWeights(graph, recipe.seed),
      optimizer: new Map(),
    }),
    createEngine({ weights, optimizer }) {
      const engine = createTrainingEngine(graph, weights, {
        ...preprocessing,
        optimizer: resolveOptimizer(recipe.optimizer),
        labelSmoothing: recipe.loss.labelSmoothing,
        gradientClipNorm: recipe.gradientClipNorm,
      });
      if (optimizer.size > 0) engine.restoreOptimizer(optimizer);
      return engine;
    },
    batch(step, rank, world) {
      const epoch = Math.floor(step / stepsPerEpoch);
      if (order?.epoch !== epoch) order = { epoch, samples: epochOrder(recipe.seed, epoch, samples) };
      const { start, end } = shareOf(batchSize, rank, world);
      const first = (step % stepsPerEpoch) * batchSize;
      const share = order.samples.subarray(first + start, first + end);
      const pixels = memory.subarray(0, share.length * train.recordBytes);
      train.read(share, pixels);
      augment(pixels, share, epoch);
      return { pixels, labels: Int32Array.from(share, (s) => train.labels[s]!), batchSize };
    },
    card: (epoch, metrics) => ({
      format: 'fovea.dev/model/v1',
      model: task.model,
      classes,
      preprocessing,
      dataset: dataset.digest,
      epoch,
      metrics,
    }),
    close() {
      train.close();
      validation.close();
    },
  };
}

function modelGraph(card: Parameters<typeof graphOf>[0]) {
  try {
    return graphOf(card);
  } catch (error) {
    if (error instanceof RangeError) throw new UserError('InvalidModel', error.message, { cause: error });
    throw error;
  }
}
