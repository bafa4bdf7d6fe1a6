/** The training engine: one step of a graph on a batch of pixels, and what it takes to save and restore it. */
import { type Graph, listParameters } from '../models/graph.ts';
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

export interface TrainingEngine {
  /**
   * One step on uint8 `[N, H, W, C]` pixels; `step` counts from 0. Returns the mean loss of the batch, before the update. A loss
   * that is not finite is returned with nothing updated.
   */
  step(pixels: Uint8Array, labels: Int32Array, learningRate: number, step: number): number;
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

  /** Forward and backward; the running statistics are kept only if `use` says so. All that it is given is released afterwards. */
  const pass = (
    pixels: Uint8Array,
    labels: Int32Array,
    use: (loss: number, gradients: Map<string, Tensor>) => { keepRunning: boolean },
  ): number => {
    const n = labels.length;
    const { loss, gradients, statistics } = withParameters((tensors) => {
      const { logits, running: statistics, backward } = network.train(normalize(pixels, n), tensors);
      const [losses, unscaled] = crossEntropy(logits, labels, options.labelSmoothing);
      const share = scalar(1 / n);
      const gradient = execute('Mul', [T], [unscaled, share]);
      const loss = read(losses).reduce((a, b) => a + b, 0) / n;
      release(losses, unscaled, share);
      return { loss, gradients: backward(gradient), statistics };
    });
    const { keepRunning } = use(loss, gradients);
    for (const [name, value] of statistics) {
      if (!keepRunning) release(value);
      else {
        release(running.get(name));
        running.set(name, value);
      }
    }
    release(...gradients.values());
    return loss;
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
    step: (pixels, labels, learningRate, step) =>
      pass(pixels, labels, (loss, gradients) => {
        if (!Number.isFinite(loss)) return { keepRunning: false };
        if (options.gradientClipNorm !== undefined) clip(gradients, options.gradientClipNorm);
        updater.apply(gradients, learningRate, step);
        return { keepRunning: true };
      }),

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
      const loss = pass(pixels, labels, (_, gradients) => {
        for (const { parameter } of trained) {
          const data = fromEngine(parameter, read(gradients.get(parameter.name)!));
          result.set(parameter.name, { shape: parameter.shape, data });
        }
        return { keepRunning: false };
      });
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
