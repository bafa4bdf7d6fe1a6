/** Values of a graph's parameters, and their first values. */
import { randomStream, STREAM } from '../philox.ts';
import { type Graph, listParameters, sizeOf } from './graph.ts';

export interface Weight {
  /** PyTorch's layout, see graph.ts. */
  shape: readonly number[];
  /** Row-major. */
  data: Float32Array;
}

/** By the parameter's name. */
export type Weights = Map<string, Weight>;

/**
 * First values, a function of graph and seed alone: convolutions from N(0, 2 / fan_out) (He et al. 2015, as torchvision's ResNets),
 * norms 1 and 0, the dense layer from U(−1/√in, 1/√in) with its bias alike (PyTorch's default).
 */
export function initializeWeights(graph: Graph, seed: number): Weights {
  const weights: Weights = new Map();
  const parameters = listParameters(graph);
  for (const [index, parameter] of parameters.entries()) {
    const random = randomStream(seed, STREAM.WEIGHTS, index, 0);
    const data = new Float32Array(sizeOf(parameter.shape));
    switch (parameter.role) {
      case 'ConvWeight': {
        const [out, , height, width] = parameter.shape as [number, number, number, number];
        const deviation = Math.sqrt(2 / (out * height * width));
        for (let i = 0; i < data.length; i++) data[i] = random.normal() * deviation;
        break;
      }
      case 'DenseWeight':
      case 'Bias': {
        const weight = parameters.find((p) => p.node === parameter.node && p.role === 'DenseWeight')!;
        const bound = 1 / Math.sqrt(weight.shape[1]!);
        for (let i = 0; i < data.length; i++) data[i] = (2 * random.uniform() - 1) * bound;
        break;
      }
      case 'NormScale':
      case 'RunningVariance':
        data.fill(1);
        break;
      case 'NormShift':
      case 'RunningMean':
        break;
    }
    weights.set(parameter.name, { shape: parameter.shape, data });
  }
  return weights;
}

/**
 * Checks that `weights` are the parameters of `graph`, no more and no less.
 * @throws Error that names the first parameter that is missing, unknown or of another shape
 */
export function checkWeights(graph: Graph, weights: Weights): void {
  const parameters = listParameters(graph);
  for (const { name, shape } of parameters) {
    const weight = weights.get(name);
    if (!weight) throw new Error(`weights: ${name} [${shape}] is missing`);
    if (String(weight.shape) !== String(shape)) {
      throw new Error(`weights: ${name} is [${weight.shape}] and the graph wants [${shape}]`);
    }
  }
  if (weights.size === parameters.length) return;
  const known = new Set(parameters.map((p) => p.name));
  throw new Error(`weights: the graph has no ${[...weights.keys()].find((name) => !known.has(name))}`);
}
