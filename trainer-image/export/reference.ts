/** The plainest evaluation of a graph, in double precision: what tests hold folding, ONNX and the engines against. */
import { type Graph, type GraphNode, INPUT, inferShapes, listParameters, type Shape, sizeOf } from '../models/graph.ts';
import type { Weights } from '../models/weights.ts';

/**
 * The logits of one picture.
 * @param pixels Normalized, [H, W, C].
 * @param weights Convolutions may have a `<node>.bias`.
 */
export function evaluate(graph: Graph, weights: Weights, pixels: Float64Array): Float64Array {
  const shapes = inferShapes(graph);
  const values = new Map([[INPUT, pixels]]);
  for (const node of graph.nodes) {
    const inputs = node.inputs.map((name) => values.get(name)!);
    values.set(node.name, apply(node, inputs, shapes.get(node.inputs[0])!, shapes.get(node.name)!, weights));
  }
  return values.get(graph.output)!;
}

/** Weights as a trained network might have them, the same for the same graph: every kind of parameter matters. */
export function randomWeights(graph: Graph): Weights {
  let state = 1;
  // Marsaglia's xorshift, 32 bits.
  const uniform = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  return new Map(
    listParameters(graph).map(({ name, role, shape }) => {
      const fanIn = sizeOf(shape.slice(1));
      const data = Float32Array.from({ length: sizeOf(shape) }, () => {
        if (role === 'NormScale' || role === 'RunningVariance') return 0.5 + uniform();
        if (role === 'ConvWeight' || role === 'DenseWeight') return (uniform() * 2 - 1) * Math.sqrt(6 / fanIn);
        return uniform() - 0.5;
      });
      return [name, { shape, data }];
    }),
  );
}

function apply(node: GraphNode, inputs: Float64Array[], from: Shape, to: Shape, weights: Weights): Float64Array {
  const x = inputs[0]!;
  const parameter = (suffix: string) => weights.get(`${node.name}.${suffix}`)?.data;
  const channels = from[from.length - 1]!;
  const out = new Float64Array(sizeOf(to));
  switch (node.op) {
    case 'Relu':
      return x.map((v) => Math.max(0, v));
    case 'Add':
      return x.map((v, i) => v + inputs[1]![i]!);
    case 'BatchNorm': {
      const [gamma, beta] = [parameter('weight')!, parameter('bias')!];
      const [mean, variance] = [parameter('running_mean')!, parameter('running_var')!];
      return x.map((v, i) => {
        const c = i % channels;
        return ((v - mean[c]!) / Math.sqrt(variance[c]! + node.epsilon)) * gamma[c]! + beta[c]!;
      });
    }
    case 'GlobalAveragePool':
      for (let i = 0; i < x.length; i++) out[i % channels]! += x[i]! / (x.length / channels);
      return out;
    case 'Dense':
      for (let unit = 0; unit < node.units; unit++) {
        out[unit] = parameter('bias')![unit]!;
        for (let c = 0; c < channels; c++) out[unit]! += parameter('weight')![unit * channels + c]! * x[c]!;
      }
      return out;
    case 'Conv': {
      const [kernelHeight, kernelWidth] = node.kernel;
      const [weight, bias] = [parameter('weight')!, parameter('bias')];
      eachWindow(from, to, node.kernel, node.stride, node.padding, (position, at, row, column) => {
        for (let filter = 0; filter < node.filters; filter++) {
          for (let c = 0; c < channels; c++) {
            const w = weight[((filter * channels + c) * kernelHeight + row) * kernelWidth + column]!;
            out[position * node.filters + filter]! += w * x[at + c]!;
          }
        }
      });
      return bias ? out.map((v, i) => v + bias[i % node.filters]!) : out;
    }
    case 'MaxPool':
      out.fill(Number.NEGATIVE_INFINITY);
      eachWindow(from, to, [node.kernel, node.kernel], node.stride, [node.padding, node.padding], (position, at) => {
        for (let c = 0; c < channels; c++) {
          const i = position * channels + c;
          out[i] = Math.max(out[i]!, x[at + c]!);
        }
      });
      return out;
    case 'Subsample':
      eachWindow(from, to, [1, 1], node.stride, [0, 0], (position, at) => {
        for (let c = 0; c < channels; c++) out[position * channels + c] = x[at + c]!;
      });
      return out;
    case 'PadChannels': {
      const wider = node.before + channels + node.after;
      for (let i = 0; i < x.length; i++) {
        out[Math.floor(i / channels) * wider + node.before + (i % channels)] = x[i]!;
      }
      return out;
    }
  }
}

/** Calls `visit` for every window's place (`position`) and every pixel in it that is no padding (`at`: its first channel). */
function eachWindow(
  from: Shape,
  to: Shape,
  kernel: readonly [number, number],
  stride: number,
  padding: readonly [number, number],
  visit: (position: number, at: number, row: number, column: number) => void,
): void {
  const [height, width, channels] = from as readonly [number, number, number];
  const [rows, columns] = to as readonly [number, number, number];
  for (let position = 0; position < rows * columns; position++) {
    const top = Math.floor(position / columns) * stride - padding[0];
    const left = (position % columns) * stride - padding[1];
    for (let row = 0; row < kernel[0]; row++) {
      for (let column = 0; column < kernel[1]; column++) {
        const [y, x] = [top + row, left + column];
        if (y >= 0 && y < height && x >= 0 && x < width) visit(position, (y * width + x) * channels, row, column);
      }
    }
  }
}
