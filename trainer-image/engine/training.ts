/** The training engine: one step of a graph on a batch of pixels, and what it takes to save and restore it. */
import { type Graph, listParameters, type Parameter, sizeOf } from '../models/graph.ts';
import { checkWeights, type Weights } from '../models/weights.ts';
import { smoothTargets } from '../optim/loss.ts';
import { clipFactor, type ResolvedOptimizer } from '../optim/optimizer.ts';
import { engineShape, fromEngine, toEngine } from './layout.ts';
import { createNetwork, createNormalizer, type Normalization } from './network.ts';
import { createUpdater } from './optimizer.ts';
import { attribute, execute, executeAll, read, release, scalar, type Tensor, tensor, variable } from './tfjs.ts';

export interface TrainingOptions extends Normalization {
  optimizer: ResolvedOptimizer;
  labelSmoothing: number;
  /** Absent: no clipping. */
  gradientClipNorm?: number | undefined;
}

/** Values by parameter name. */
export interface ValueSpec {
  name: string;
  length: number;
}

export interface TrainingEngine {
  /**
   * One step on uint8 `[N, H, W, C]` pixels; `step` counts from 0. Returns the mean loss of the batch, before the update. A loss
   * that is not finite is returned with nothing updated.
   */
  step(pixels: Uint8Array, labels: Int32Array, learningRate: number, step: number): number;
  /** What `differentiate` hands out and `update` takes, laid out as the engine has it. */
  readonly exchanged: {
    /** Of each trained parameter, in the order in which the backward pass makes them. */
    gradients: readonly ValueSpec[];
    /** Running statistics. */
    statistics: readonly ValueSpec[];
  };
  /**
   * The part of a step that one of several workers computes: its share of a batch of `batchSize`, without an update. `onGradient`
   * gets each gradient, already divided by `batchSize`, as soon as it is there. Summed over all shares, gradients and loss are those of
   * the batch (with batch norm over each share).
   */
  differentiate(
    pixels: Uint8Array,
    labels: Int32Array,
    batchSize: number,
    onGradient: (parameter: string, values: Float32Array) => void,
  ): { loss: number; statistics: Map<string, Float32Array> };
  /** The other part: the update from gradients and new running statistics, which are copied. */
  update(values: ReadonlyMap<string, Float32Array>, learningRate: number, step: number): void;
  /** Mean cross-entropy (not smoothed) summed over the batch, and how many labels were met, with the running statistics. */
  evaluate(pixels: Uint8Array, labels: Int32Array): { loss: number; correct: number };
  /** Loss and gradients by parameter name, PyTorch's layout, without an update. */
  gradients(pixels: Uint8Array, labels: Int32Array): { loss: number; gradients: Weights };
  /** Copies of the parameters. */
  weights(): Weights;
  /** Copies of the optimizer's state, by `<slot>.<parameter>`, laid out as the parameter. */
  optimizerState(): Weights;
  /** Takes up a saved state. */
  restoreOptimizer(state: Weights): void;
  release(): void;
}

/** The engine must be loaded. */
export function createTrainingEngine(graph: Graph, weights: Weights, options: TrainingOptions): TrainingEngine {
  checkWeights(graph, weights);
  const { height, width, channels } = graph.input;
  const T = attribute.float32('T');
  const network = createNetwork(graph);
  const normalizer = createNormalizer(options);
  const parameters = listParameters(graph);
  const trained = parameters
    .filter((p) => p.trainable)
    .map((parameter) => ({
      parameter,
      variable: variable(toEngine(parameter, weights.get(parameter.name)!.data), engineShape(parameter)),
    }));
  /** Running statistics, replaced at each step. */
  const running = new Map(
    parameters
      .filter((p) => !p.trainable)
      .map((p) => [p.name, tensor(weights.get(p.name)!.data.slice(), p.shape)] as const),
  );
  const updater = createUpdater(trained, options.optimizer);

  const normalize = (pixels: Uint8Array, n: number) => normalizer.normalize(pixels, [n, height, width, channels]);

  /** `use` gets all parameters, which live while it runs. */
  const withParameters = <R>(use: (tensors: Map<string, Tensor>) => R): R => {
    const read = trained.map(({ parameter, variable: v }) => [parameter.name, v.read()] as const);
    const result = use(new Map([...read, ...running]));
    release(...read.map(([, t]) => t));
    return result;
  };

  /** Per-sample loss `[N]` and its gradient `[N, classes]`. */
  const crossEntropy = (logits: Tensor, labels: Int32Array, smoothing: number): [Tensor, Tensor] => {
    const classes = logits.shape[1]!;
    const targets = tensor(smoothTargets(labels, classes, smoothing), [labels.length, classes]);
    const [loss, gradient] = executeAll('SoftmaxCrossEntropyWithLogits', [T], [logits, targets], 2);
    release(targets);
    return [loss!, gradient!];
  };

  /** Forward and backward of samples that count 1 / `batchSize` each; gradients and new running statistics are the caller's. */
  const pass = (
    pixels: Uint8Array,
    labels: Int32Array,
    batchSize: number,
    onGradient: (parameter: string, gradient: Tensor) => void,
  ): { loss: number; statistics: Map<string, Tensor> } =>
    withParameters((tensors) => {
      const { logits, running: statistics, backward } = network.train(normalize(pixels, labels.length), tensors);
      const [losses, unscaled] = crossEntropy(logits, labels, options.labelSmoothing);
      const share = scalar(1 / batchSize);
      const gradient = execute('Mul', [T], [unscaled, share]);
      const loss = read(losses).reduce((a, b) => a + b, 0) / batchSize;
      release(losses, unscaled, share);
      backward(gradient, onGradient);
      return { loss, statistics };
    });

  /** Takes over new running statistics. */
  const keep = (statistics: ReadonlyMap<string, Tensor>) => {
    for (const [name, value] of statistics) {
      release(running.get(name));
      running.set(name, value);
    }
  };

  /** Clips and applies the gradients, and releases them. */
  const apply = (gradients: Map<string, Tensor>, learningRate: number, step: number) => {
    if (options.gradientClipNorm !== undefined) clip(gradients, options.gradientClipNorm);
    updater.apply(gradients, learningRate, step);
    release(...gradients.values());
  };

  /** Scales the gradients in the map to the norm that is allowed. */
  const clip = (gradients: Map<string, Tensor>, limit: number) => {
    let squares = 0;
    for (const gradient of gradients.values()) {
      const half = execute('L2Loss', [T], [gradient]);
      squares += 2 * read(half)[0]!;
      release(half);
    }
    const factor = clipFactor(Math.sqrt(squares), limit);
    if (factor === 1) return;
    const by = scalar(factor);
    for (const [name, gradient] of gradients) {
      gradients.set(name, execute('Mul', [T], [gradient, by]));
      release(gradient);
    }
    release(by);
  };

  return {
    step(pixels, labels, learningRate, step) {
      const gradients = new Map<string, Tensor>();
      const { loss, statistics } = pass(pixels, labels, labels.length, (name, value) => gradients.set(name, value));
      if (Number.isFinite(loss)) {
        apply(gradients, learningRate, step);
        keep(statistics);
      } else release(...gradients.values(), ...statistics.values());
      return loss;
    },

    exchanged: {
      gradients: trained
        .map(({ parameter }) => parameter)
        .toReversed()
        .map(specOf),
      statistics: parameters.filter((p) => !p.trainable).map(specOf),
    },

    differentiate(pixels, labels, batchSize, onGradient) {
      const { loss, statistics } = pass(pixels, labels, batchSize, (name, value) => {
        onGradient(name, read(value));
        release(value);
      });
      const values = new Map([...statistics].map(([name, value]) => [name, read(value)]));
      release(...statistics.values());
      return { loss, statistics: values };
    },

    update(values, learningRate, step) {
      // Copies: the tensors live on in the engine, and the caller's memory changes.
      const tensorOf = (parameter: Parameter) =>
        [parameter.name, tensor(values.get(parameter.name)!.slice(), engineShape(parameter))] as const;
      apply(new Map(trained.map(({ parameter }) => tensorOf(parameter))), learningRate, step);
      keep(new Map(parameters.filter((p) => !p.trainable).map(tensorOf)));
    },

    evaluate(pixels, labels) {
      const n = labels.length;
      return withParameters((tensors) => {
        const logits = network.infer(normalize(pixels, n), tensors);
        const [losses, gradient] = crossEntropy(logits, labels, 0);
        const loss = read(losses).reduce((a, b) => a + b, 0);
        const correct = countCorrect(read(logits), labels);
        release(logits, losses, gradient);
        return { loss, correct };
      });
    },

    gradients(pixels, labels) {
      const result: Weights = new Map();
      const byName = new Map(trained.map(({ parameter }) => [parameter.name, parameter]));
      const { loss, statistics } = pass(pixels, labels, labels.length, (name, value) => {
        const parameter = byName.get(name)!;
        result.set(name, { shape: parameter.shape, data: fromEngine(parameter, read(value)) });
        release(value);
      });
      release(...statistics.values());
      return { loss, gradients: result };
    },

    weights: () =>
      withParameters(
        (tensors) =>
          new Map(
            parameters.map((parameter) => [
              parameter.name,
              { shape: parameter.shape, data: fromEngine(parameter, read(tensors.get(parameter.name)!)) },
            ]),
          ),
      ),

    optimizerState() {
      const state: Weights = new Map();
      for (const [name, { parameter, variable: slot }] of updater.slots) {
        const value = slot.read();
        state.set(name, { shape: parameter.shape, data: fromEngine(parameter, read(value)) });
        release(value);
      }
      return state;
    },

    restoreOptimizer(state) {
      for (const [name, { parameter, variable: slot }] of updater.slots) {
        const saved = state.get(name);
        if (!saved || String(saved.shape) !== String(parameter.shape)) {
          throw new Error(`optimizer state: ${name} [${parameter.shape}] is missing or of another shape`);
        }
        const value = tensor(toEngine(parameter, saved.data.slice()), slot.shape);
        slot.assign(value);
        release(value);
      }
    },

    release() {
      network.release();
      normalizer.release();
      updater.release();
      for (const { variable: v } of trained) v.release();
      release(...running.values());
    },
  };
}

function specOf({ name, shape }: Parameter): ValueSpec {
  return { name, length: sizeOf(shape) };
}

/** How many rows of `logits` have their largest value at the label; of equals the first counts. */
function countCorrect(logits: Float32Array, labels: Int32Array): number {
  const classes = logits.length / labels.length;
  let correct = 0;
  for (const [row, label] of labels.entries()) {
    let best = 0;
    for (let c = 1; c < classes; c++) {
      if (logits[row * classes + c]! > logits[row * classes + best]!) best = c;
    }
    if (best === label) correct++;
  }
  return correct;
}
