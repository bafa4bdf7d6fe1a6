/**
 * From the graph form to ONNX. Values are channels-first as ONNX's convolutions want them, so a network's `[N, H, W, C]` is
 * `[N, C, H, W]` here; weights are in that layout already.
 *
 * Input `image`: UINT8 [N, C, H, W], RGB or grey, or FLOAT normalized where normalization is left to the caller.
 * Output `logits`: FLOAT [N, classes].
 */
import type { ExportResult, ModelCard, OnnxFormat } from '../contract.ts';
import { type Graph, type GraphNode, INPUT } from '../models/graph.ts';
import type { Weights } from '../models/weights.ts';
import { writeMetadata } from './metadata.ts';
import type { Attribute, DataType, Dimension, Initializer, OnnxModel, OnnxNode, ValueInfo } from './onnx.ts';

export const IMAGE = 'image';
export const LOGITS = 'logits';

/** Name of the batch dimension where it is open. */
const BATCH = 'N';

/**
 * The IR version that came with an operator set (https://github.com/onnx/onnx/blob/main/docs/Versioning.md): a runtime that
 * knows the one knows the other.
 */
function irVersionOf(opset: number): number {
  if (opset <= 14) return 7;
  if (opset <= 18) return 8;
  if (opset <= 20) return 9;
  return 10;
}

/**
 * @param weights As `foldBatchNorms` gives them: a convolution may have a bias.
 * @param source Digest of the safetensors model.
 */
export function buildModel(
  graph: Graph,
  weights: Weights,
  card: ModelCard,
  source: string,
  format: OnnxFormat,
): OnnxModel {
  const { height, width, channels } = graph.input;
  const batch: Dimension = format.dynamicBatch ? BATCH : 1;
  const builder = new OnnxBuilder(weights, graph.output);
  if (format.foldNormalization) builder.normalize(card.preprocessing.mean, card.preprocessing.std);
  for (const node of graph.nodes) builder.addNode(node);
  const imageType: DataType = format.foldNormalization ? 'UINT8' : 'FP32';
  return {
    irVersion: irVersionOf(format.opset),
    opset: format.opset,
    producerName: 'fovea',
    producerVersion: '',
    metadata: writeMetadata(card, source),
    graph: {
      name: card.model.name,
      nodes: builder.nodes,
      initializers: builder.initializers,
      inputs: [{ name: IMAGE, dataType: imageType, shape: [batch, channels, height, width] }],
      outputs: [{ name: LOGITS, dataType: 'FP32', shape: [batch, card.classes.length] }],
    },
  };
}

/** A value as statuses show it: shape `N,3,32,32`. */
export function signatureOf({ name, dataType, shape }: ValueInfo): ExportResult['signature']['inputs'][number] {
  return { name, dataType, shape: shape.join(',') };
}

class OnnxBuilder {
  readonly nodes: OnnxNode[] = [];
  readonly initializers: Initializer[] = [];
  readonly #weights: Weights;
  readonly #output: string;
  /** What the graph's `input` is called here. */
  #input = IMAGE;

  constructor(weights: Weights, output: string) {
    this.#weights = weights;
    this.#output = output;
  }

  /**
   * (x / 255 − mean) / std = (x − 255·mean) · 1/(255·std) in front of the network. Not in the first convolution's weights: its
   * zero padding is of normalized pixels, so the shift would be wrong along the edges.
   */
  normalize(mean: readonly number[], std: readonly number[]): void {
    const perChannel = [1, mean.length, 1, 1];
    const pixels = this.#append('Cast', 'normalize.cast', [IMAGE], { to: 1 });
    const shift = this.#floats(
      'normalize.shift',
      perChannel,
      Float32Array.from(mean, (m) => 255 * m),
    );
    const scale = this.#floats(
      'normalize.scale',
      perChannel,
      Float32Array.from(std, (s) => 1 / (255 * s)),
    );
    const centred = this.#append('Sub', 'normalize.sub', [pixels, shift]);
    this.#input = this.#append('Mul', 'normalize.mul', [centred, scale]);
  }

  addNode(node: GraphNode): void {
    const inputs = node.inputs.map((name) => (name === INPUT ? this.#input : name));
    const [x] = inputs as [string];
    switch (node.op) {
      case 'Conv': {
        const [top, left] = node.padding;
        this.#append('Conv', node.name, [x, ...this.#parameters(node.name, ['weight'], ['bias'])], {
          kernel_shape: node.kernel,
          strides: [node.stride, node.stride],
          pads: [top, left, top, left],
        });
        return;
      }
      case 'BatchNorm': {
        const parameters = this.#parameters(node.name, ['weight', 'bias', 'running_mean', 'running_var']);
        this.#append('BatchNormalization', node.name, [x, ...parameters], { epsilon: { float: node.epsilon } });
        return;
      }
      case 'Relu':
      case 'Add':
        this.#append(node.op, node.name, inputs);
        return;
      case 'MaxPool':
        this.#append('MaxPool', node.name, [x], {
          kernel_shape: [node.kernel, node.kernel],
          strides: [node.stride, node.stride],
          pads: [node.padding, node.padding, node.padding, node.padding],
        });
        return;
      case 'GlobalAveragePool': {
        const pooled = this.#append('GlobalAveragePool', `${node.name}.pool`, [x]);
        this.#append('Flatten', node.name, [pooled], { axis: 1 });
        return;
      }
      case 'Subsample': {
        const integers = (suffix: string, values: number[]) => this.#integers(`${node.name}.${suffix}`, values);
        // An end beyond the size means: to the end.
        const ends = integers('ends', [2 ** 31 - 1, 2 ** 31 - 1]);
        const [starts, axes] = [integers('starts', [0, 0]), integers('axes', [2, 3])];
        this.#append('Slice', node.name, [x, starts, ends, axes, integers('steps', [node.stride, node.stride])]);
        return;
      }
      case 'PadChannels': {
        const pads = this.#integers(`${node.name}.pads`, [0, node.before, 0, 0, 0, node.after, 0, 0]);
        this.#append('Pad', node.name, [x, pads], { mode: 'constant' });
        return;
      }
      case 'Dense':
        this.#append('Gemm', node.name, [x, ...this.#parameters(node.name, ['weight', 'bias'])], { transB: 1 });
        return;
    }
  }

  /** Appends a node of one output, and returns that value's name. */
  #append(opType: string, name: string, inputs: readonly string[], attributes?: Record<string, Attribute>): string {
    const output = name === this.#output ? LOGITS : name;
    this.nodes.push({ opType, name, inputs, outputs: [output], ...(attributes && { attributes }) });
    return output;
  }

  /** Adds a node's weights as initializers, and returns their names. */
  #parameters(node: string, required: readonly string[], optional: readonly string[] = []): string[] {
    return [...required, ...optional].flatMap((suffix) => {
      const name = `${node}.${suffix}`;
      const tensor = this.#weights.get(name);
      if (tensor) return [this.#floats(name, tensor.shape, tensor.data)];
      if (optional.includes(suffix)) return [];
      throw new Error(`the model has no weights ${name}`);
    });
  }

  #floats(name: string, shape: readonly number[], data: Float32Array): string {
    this.initializers.push({ name, dataType: 'FP32', shape, data });
    return name;
  }

  #integers(name: string, values: readonly number[]): string {
    this.initializers.push({
      name,
      dataType: 'INT64',
      shape: [values.length],
      data: BigInt64Array.from(values, (value) => BigInt(value)),
    });
    return name;
  }
}
