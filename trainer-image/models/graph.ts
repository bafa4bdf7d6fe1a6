/**
 * The graph form of a network: plain data that the training engine, the ONNX export and everything else that must know a
 * network's layers walk. Nodes are in topological order; a node's name is also its value's name.
 *
 * Semantics are PyTorch's. A value is `[N, H, W, C]` or, behind the pooling, `[N, C]`; shapes here leave out the batch.
 * Parameters are named and laid out as in a PyTorch state_dict (`<node>.weight` as OIHW or [out, in], `<node>.bias`,
 * `<node>.running_mean`, `<node>.running_var`), so that files open there and ONNX needs no transposition.
 */

/** Two-dimensional convolution without bias. Padding is symmetric and explicit, as in PyTorch, also with a stride. */
export interface Conv {
  op: 'Conv';
  name: string;
  inputs: readonly [string];
  /** Output channels. */
  filters: number;
  /** Kernel `[height, width]`. */
  kernel: readonly [number, number];
  /** Step of the window, the same in both directions. */
  stride: number;
  /** Zeros added on each side: `[top and bottom, left and right]`. */
  padding: readonly [number, number];
}

/**
 * Batch normalization over all but the channels (Ioffe and Szegedy 2015). Training normalizes with the batch's biased variance
 * and moves the running statistics by `momentum` (with the unbiased variance), as PyTorch does; inference uses those.
 */
export interface BatchNorm {
  op: 'BatchNorm';
  name: string;
  inputs: readonly [string];
  epsilon: number;
  /** Share of the new value: running = (1 − momentum) · running + momentum · batch. */
  momentum: number;
}

export interface Relu {
  op: 'Relu';
  name: string;
  inputs: readonly [string];
}

/** Element-wise sum of two values of one shape. */
export interface Add {
  op: 'Add';
  name: string;
  inputs: readonly [string, string];
}

/** Maximum over a square window; padding (each side) never wins. */
export interface MaxPool {
  op: 'MaxPool';
  name: string;
  inputs: readonly [string];
  kernel: number;
  stride: number;
  padding: number;
}

/** Mean over height and width: [H, W, C] → [C]. */
export interface GlobalAveragePool {
  op: 'GlobalAveragePool';
  name: string;
  inputs: readonly [string];
}

/** Every `stride`-th row and column, from the first: `x[:, ::stride, ::stride, :]`. */
export interface Subsample {
  op: 'Subsample';
  name: string;
  inputs: readonly [string];
  stride: number;
}

/** Zero channels added before and after. With `Subsample` this is the parameter-free shortcut (option A) of the ResNet paper. */
export interface PadChannels {
  op: 'PadChannels';
  name: string;
  inputs: readonly [string];
  before: number;
  after: number;
}

/** Affine map with bias: [C] → [units]. */
export interface Dense {
  op: 'Dense';
  name: string;
  inputs: readonly [string];
  units: number;
}

export type GraphNode = Conv | BatchNorm | Relu | Add | MaxPool | GlobalAveragePool | Subsample | PadChannels | Dense;

/** Name of the value that the graph takes: normalized pixels. */
export const INPUT = 'input';

export interface Graph {
  /** Shape of the value `input`. */
  input: { height: number; width: number; channels: number };
  /** In topological order; inputs are `input` or names of earlier nodes. */
  nodes: readonly GraphNode[];
  /** Node whose value is the logits, `[N, classes]`. */
  output: string;
}

/** `[H, W, C]` or `[C]`, without the batch. */
export type Shape = readonly [number, number, number] | readonly [number];

/**
 * Shape of every value by name.
 * @throws Error that names the node whose inputs are missing, of the wrong kind or too small; that is a bug of the builder.
 */
export function inferShapes(graph: Graph): Map<string, Shape> {
  const { height, width, channels } = graph.input;
  const shapes = new Map<string, Shape>([[INPUT, [height, width, channels]]]);
  for (const node of graph.nodes) {
    if (shapes.has(node.name)) throw new Error(`graph: two values are named ${node.name}`);
    const inputs = node.inputs.map((name) => {
      const shape = shapes.get(name);
      if (!shape) throw new Error(`graph: node ${node.name} takes ${name}, which no earlier node makes`);
      return shape;
    });
    const shape = outputShape(node, inputs);
    if (!shape || shape.some((n) => !Number.isInteger(n) || n < 1)) {
      throw new Error(`graph: node ${node.name} (${node.op}) cannot take ${inputs.map((s) => `[${s}]`).join(', ')}`);
    }
    shapes.set(node.name, shape);
  }
  if (!shapes.has(graph.output)) throw new Error(`graph: its output ${graph.output} is no node`);
  return shapes;
}

function outputShape(node: GraphNode, inputs: readonly Shape[]): Shape | undefined {
  const x = inputs[0]!;
  if (node.op === 'Dense') return x.length === 1 ? [node.units] : undefined;
  if (node.op === 'BatchNorm' || node.op === 'Relu') return x;
  if (node.op === 'Add') return String(inputs[0]) === String(inputs[1]) ? x : undefined;
  if (x.length !== 3) return undefined;
  const [height, width, channels] = x;
  switch (node.op) {
    case 'Conv':
      return [
        windows(height, node.kernel[0], node.stride, node.padding[0]),
        windows(width, node.kernel[1], node.stride, node.padding[1]),
        node.filters,
      ];
    case 'MaxPool':
      return [
        windows(height, node.kernel, node.stride, node.padding),
        windows(width, node.kernel, node.stride, node.padding),
        channels,
      ];
    case 'GlobalAveragePool':
      return [channels];
    case 'Subsample':
      return [Math.ceil(height / node.stride), Math.ceil(width / node.stride), channels];
    case 'PadChannels':
      return [height, width, node.before + channels + node.after];
  }
}

/** How many windows of `kernel` fit in `size` padded on both sides. */
function windows(size: number, kernel: number, stride: number, padding: number): number {
  return Math.floor((size + 2 * padding - kernel) / stride) + 1;
}

/** What a parameter is, which decides its initial value, its layout in an engine and whether it is decayed. */
export type ParameterRole =
  | 'ConvWeight'
  | 'DenseWeight'
  | 'Bias'
  | 'NormScale'
  | 'NormShift'
  | 'RunningMean'
  | 'RunningVariance';

export interface Parameter {
  /** As in a PyTorch state_dict: `layer1.0.conv1.weight`. */
  name: string;
  node: string;
  role: ParameterRole;
  /** PyTorch's layout: OIHW, [out, in] or [C]. */
  shape: readonly number[];
  /** False for running statistics: no gradient, no optimizer. */
  trainable: boolean;
}

/** All parameters in the order of the nodes. */
export function listParameters(graph: Graph): Parameter[] {
  const shapes = inferShapes(graph);
  return graph.nodes.flatMap((node): Parameter[] => {
    const input = shapes.get(node.inputs[0])!;
    const channels = input[input.length - 1]!;
    const parameter = (suffix: string, role: ParameterRole, shape: readonly number[], trainable = true): Parameter => ({
      name: `${node.name}.${suffix}`,
      node: node.name,
      role,
      shape,
      trainable,
    });
    switch (node.op) {
      case 'Conv':
        return [parameter('weight', 'ConvWeight', [node.filters, channels, ...node.kernel])];
      case 'Dense':
        return [parameter('weight', 'DenseWeight', [node.units, channels]), parameter('bias', 'Bias', [node.units])];
      case 'BatchNorm':
        return [
          parameter('weight', 'NormScale', [channels]),
          parameter('bias', 'NormShift', [channels]),
          parameter('running_mean', 'RunningMean', [channels], false),
          parameter('running_var', 'RunningVariance', [channels], false),
        ];
      default:
        return [];
    }
  });
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
