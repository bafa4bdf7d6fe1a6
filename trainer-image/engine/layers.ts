/**
 * What each op of the graph form computes in TensorFlow: `forward` for inference and training, `backward` for the gradients.
 * Layers own nothing: they return tensors that the caller releases.
 */
import type { GraphNode, Shape } from '../models/graph.ts';
import { attribute, execute, executeAll, release, scalar, type Tensor, tensor } from './tfjs.ts';

/** Parameters of one node by suffix: `weight`, `bias`, `running_mean`, `running_var`. */
export type NodeParameters = Readonly<Record<string, Tensor>>;

export interface Forward {
  output: Tensor;
  /** What `backward` needs beyond inputs and output. */
  saved?: readonly Tensor[];
  /** New running statistics (training only); they replace the old ones. */
  running?: { running_mean: Tensor; running_var: Tensor };
}

export interface Backward {
  /** By position of the input; undefined where it was not wanted. */
  inputs: readonly (Tensor | undefined)[];
  /** By suffix of the trainable parameter. */
  parameters: Readonly<Record<string, Tensor>>;
}

export interface BackwardArguments {
  gradient: Tensor;
  inputs: readonly Tensor[];
  output: Tensor;
  saved: readonly Tensor[];
  parameters: NodeParameters;
  /** False if nobody needs the gradient of the inputs: the first layer of the network. */
  wantInputs: boolean;
}

export interface Layer {
  /** Which values must live until `backward`: besides these, a value dies with its last reader. */
  keeps: { inputs: boolean; output: boolean };
  infer(inputs: readonly Tensor[], parameters: NodeParameters): Tensor;
  forward(inputs: readonly Tensor[], parameters: NodeParameters): Forward;
  backward(args: BackwardArguments): Backward;
  /** Tensors that the layer made for itself. */
  release(): void;
}

/** The layer of a node whose first input has this shape (without the batch). */
export function createLayer(node: GraphNode, input: Shape): Layer {
  const constants: Tensor[] = [];
  const keep = (t: Tensor) => {
    constants.push(t);
    return t;
  };
  const parts = createParts(node, input, keep);
  return {
    keeps: { inputs: false, output: false },
    forward: (inputs, parameters) => ({ output: parts.infer(inputs, parameters) }),
    ...parts,
    release: () => release(...constants),
  };
}

type Parts = Pick<Layer, 'infer' | 'backward'> & Partial<Pick<Layer, 'keeps' | 'forward'>>;

function createParts(node: GraphNode, input: Shape, keep: (constant: Tensor) => Tensor): Parts {
  const constant = (values: readonly number[], shape: readonly number[] = [values.length]) =>
    keep(tensor(Int32Array.from(values), shape));
  const T = attribute.float32('T');
  const nhwc = attribute.string('data_format', 'NHWC');

  switch (node.op) {
    case 'Conv': {
      // TensorFlow's SAME is symmetric where the output has the input's size. Elsewhere the zeros are put there before: its EXPLICIT
      // padding says the same, but the gradients then miss the oneDNN kernels and take up to ten times as long.
      const [vertical, horizontal] = node.padding;
      const same = node.stride === 1 && node.kernel[0] === 2 * vertical + 1 && node.kernel[1] === 2 * horizontal + 1;
      const padded = !same && (vertical > 0 || horizontal > 0);
      const attributes = [
        T,
        attribute.integer('strides', [1, node.stride, node.stride, 1]),
        attribute.string('padding', same ? 'SAME' : 'VALID'),
        nhwc,
        attribute.integer('dilations', [1, 1, 1, 1]),
        attribute.boolean('use_cudnn_on_gpu', true),
      ];
      const weightShape = constant([...node.kernel, input[2]!, node.filters]);
      const paddings = constant([0, 0, vertical, vertical, horizontal, horizontal, 0, 0], [4, 2]);
      const begin = constant([0, vertical, horizontal, 0]);
      /** `use` gets the input with its padding. */
      const withPadding = <R>(x: Tensor, use: (x: Tensor) => R): R => {
        if (!padded) return use(x);
        const wide = execute('Pad', [T, attribute.int32('Tpaddings')], [x, paddings]);
        const result = use(wide);
        release(wide);
        return result;
      };
      const inputGradient = (x: Tensor, wide: Tensor, weight: Tensor, gradient: Tensor) => {
        const wideShape = tensor(Int32Array.from(wide.shape), [4]);
        const dx = execute('Conv2DBackpropInput', attributes, [wideShape, weight, gradient]);
        release(wideShape);
        if (!padded) return dx;
        const size = tensor(Int32Array.from(x.shape), [4]);
        const inner = execute('Slice', [T, attribute.int32('Index')], [dx, begin, size]);
        release(dx, size);
        return inner;
      };
      return {
        keeps: { inputs: true, output: false },
        infer: ([x], { weight }) => withPadding(x!, (wide) => execute('Conv2D', attributes, [wide, weight!])),
        backward: ({ gradient, inputs: [x], parameters: { weight }, wantInputs }) =>
          withPadding(x!, (wide) => ({
            inputs: [wantInputs ? inputGradient(x!, wide, weight!, gradient) : undefined],
            parameters: { weight: execute('Conv2DBackpropFilter', attributes, [wide, weightShape, gradient]) },
          })),
      };
    }

    case 'BatchNorm': {
      const common = [T, attribute.float32('U'), attribute.number('epsilon', node.epsilon), nhwc];
      const training = [...common, attribute.boolean('is_training', true)];
      // In training mode the op itself moves the running statistics, with the unbiased variance.
      const moving = [...training, attribute.number('exponential_avg_factor', node.momentum)];
      const inference = [...common, attribute.boolean('is_training', false)];
      return {
        keeps: { inputs: true, output: false },
        infer([x], p) {
          const inputs = [x!, p.weight!, p.bias!, p.running_mean!, p.running_var!];
          const [y, ...rest] = executeAll('FusedBatchNormV3', inference, inputs, 6);
          release(...rest);
          return y!;
        },
        forward([x], p) {
          const inputs = [x!, p.weight!, p.bias!, p.running_mean!, p.running_var!];
          const [y, mean, variance, ...saved] = executeAll('FusedBatchNormV3', moving, inputs, 6);
          return { output: y!, saved, running: { running_mean: mean!, running_var: variance! } };
        },
        backward({ gradient, inputs: [x], saved, parameters: { weight } }) {
          const inputs = [gradient, x!, weight!, ...saved];
          const [dx, scale, shift, ...rest] = executeAll('FusedBatchNormGradV3', training, inputs, 5);
          release(...rest);
          return { inputs: [dx], parameters: { weight: scale!, bias: shift! } };
        },
      };
    }

    case 'Relu':
      return {
        keeps: { inputs: false, output: true },
        infer: ([x]) => execute('Relu', [T], [x!]),
        backward: ({ gradient, output }) => ({
          inputs: [execute('ReluGrad', [T], [gradient, output])],
          parameters: {},
        }),
      };

    case 'Add':
      return {
        infer: ([a, b]) => execute('AddV2', [T], [a!, b!]),
        // Both inputs get the gradient itself; two handles, so that each has one owner.
        backward: ({ gradient }) => ({
          inputs: [execute('Identity', [T], [gradient]), execute('Identity', [T], [gradient])],
          parameters: {},
        }),
      };

    case 'MaxPool': {
      const attributes = [
        T,
        attribute.integer('ksize', [1, node.kernel, node.kernel, 1]),
        attribute.integer('strides', [1, node.stride, node.stride, 1]),
        ...(node.padding === 0
          ? [attribute.string('padding', 'VALID')]
          : [
              attribute.string('padding', 'EXPLICIT'),
              attribute.integer(
                'explicit_paddings',
                [0, 1, 1, 0].flatMap((spatial) => [spatial * node.padding, spatial * node.padding]),
              ),
            ]),
        nhwc,
      ];
      return {
        keeps: { inputs: true, output: true },
        infer: ([x]) => execute('MaxPool', attributes, [x!]),
        backward: ({ gradient, inputs: [x], output }) => ({
          inputs: [execute('MaxPoolGrad', attributes, [x!, output, gradient])],
          parameters: {},
        }),
      };
    }

    case 'GlobalAveragePool': {
      const [height, width, channels] = input as readonly [number, number, number];
      const axes = constant([1, 2]);
      const share = keep(scalar(1 / (height * width)));
      return {
        infer: ([x]) =>
          execute('Mean', [T, attribute.int32('Tidx'), attribute.boolean('keep_dims', false)], [x!, axes]),
        backward({ gradient }) {
          const batch = gradient.shape[0]!;
          const scaled = execute('Mul', [T], [gradient, share]);
          const spread = tensor(Int32Array.of(batch, 1, 1, channels), [4]);
          const whole = tensor(Int32Array.of(batch, height, width, channels), [4]);
          const square = execute('Reshape', [T, attribute.int32('Tshape')], [scaled, spread]);
          const dx = execute('BroadcastTo', [T, attribute.int32('Tidx')], [square, whole]);
          release(scaled, spread, whole, square);
          return { inputs: [dx], parameters: {} };
        },
      };
    }

    case 'Subsample': {
      const [begin, end, strides] = [
        constant([0, 0, 0, 0]),
        constant([0, 0, 0, 0]),
        constant([1, node.stride, node.stride, 1]),
      ];
      const attributes = [
        T,
        attribute.int32('Index'),
        // Bits of the dimensions where begin and end are ignored: all.
        attribute.integer('begin_mask', 15),
        attribute.integer('end_mask', 15),
        attribute.integer('ellipsis_mask', 0),
        attribute.integer('new_axis_mask', 0),
        attribute.integer('shrink_axis_mask', 0),
      ];
      return {
        infer: ([x]) => execute('StridedSlice', attributes, [x!, begin, end, strides]),
        backward({ gradient }) {
          const shape = tensor(Int32Array.of(gradient.shape[0]!, ...input), [4]);
          const dx = execute('StridedSliceGrad', attributes, [shape, begin, end, strides, gradient]);
          release(shape);
          return { inputs: [dx], parameters: {} };
        },
      };
    }

    case 'PadChannels': {
      const paddings = constant([0, 0, 0, 0, 0, 0, node.before, node.after], [4, 2]);
      const begin = constant([0, 0, 0, node.before]);
      return {
        infer: ([x]) => execute('Pad', [T, attribute.int32('Tpaddings')], [x!, paddings]),
        backward({ gradient }) {
          const size = tensor(Int32Array.of(gradient.shape[0]!, ...input), [4]);
          const dx = execute('Slice', [T, attribute.int32('Index')], [gradient, begin, size]);
          release(size);
          return { inputs: [dx], parameters: {} };
        },
      };
    }

    case 'Dense':
      return {
        keeps: { inputs: true, output: false },
        infer([x], { weight, bias }) {
          const product = matMul(x!, weight!, false, true);
          const y = execute('BiasAdd', [T, nhwc], [product, bias!]);
          release(product);
          return y;
        },
        backward: ({ gradient, inputs: [x], parameters: { weight }, wantInputs }) => ({
          inputs: [wantInputs ? matMul(gradient, weight!, false, false) : undefined],
          parameters: {
            weight: matMul(gradient, x!, true, false),
            bias: execute('BiasAddGrad', [T, nhwc], [gradient]),
          },
        }),
      };
  }
}

function matMul(a: Tensor, b: Tensor, transposeA: boolean, transposeB: boolean): Tensor {
  return execute(
    'MatMul',
    [
      attribute.float32('T'),
      attribute.boolean('transpose_a', transposeA),
      attribute.boolean('transpose_b', transposeB),
    ],
    [a, b],
  );
}
