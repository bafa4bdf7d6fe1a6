/** Runs a graph: forward for inference, forward and backward for training. Values live no longer than somebody needs them. */
import { type Graph, INPUT, inferShapes } from '../models/graph.ts';
import { createLayer, type NodeParameters } from './layers.ts';
import { attribute, execute, release, type Tensor, tensor } from './tfjs.ts';

/** Values of parameters by their name in the state_dict. */
export type ParameterTensors = ReadonlyMap<string, Tensor>;

export interface TrainingPass {
  /** `[N, classes]`; belongs to the pass. */
  logits: Tensor;
  /** New running statistics by parameter name; the caller's. */
  running: Map<string, Tensor>;
  /**
   * Hands out the gradient of each trainable parameter (the callee's) as soon as it is there, the last layer's first, given that of
   * the logits (which is released). Ends the pass.
   */
  backward(gradient: Tensor, onGradient: (parameter: string, gradient: Tensor) => void): void;
}

export interface Network {
  /** Logits with the running statistics; `input` is normalized pixels and is released, the result is the caller's. */
  infer(input: Tensor, parameters: ParameterTensors): Tensor;
  /** Logits with the batch's statistics, and what the gradients need; `input` then belongs to the pass. */
  train(input: Tensor, parameters: ParameterTensors): TrainingPass;
  release(): void;
}

export function createNetwork(graph: Graph): Network {
  const shapes = inferShapes(graph);
  const nodes = graph.nodes.map((node) => ({ node, layer: createLayer(node, shapes.get(node.inputs[0])!) }));

  /** Index of the last node that reads a value. */
  const lastRead = new Map<string, number>();
  /** Values that `backward` needs. */
  const kept = new Set<string>();
  for (const [index, { node, layer }] of nodes.entries()) {
    for (const name of node.inputs) {
      lastRead.set(name, index);
      if (layer.keeps.inputs) kept.add(name);
    }
    if (layer.keeps.output) kept.add(node.name);
  }
  lastRead.set(graph.output, nodes.length);
  const dying = nodes.map((_, index) => [...lastRead].filter(([, last]) => last === index).map(([name]) => name));

  const suffixesOf = new Map<string, string[]>();
  const parametersOf = (node: string, parameters: ParameterTensors): NodeParameters => {
    let suffixes = suffixesOf.get(node);
    if (!suffixes) {
      const prefix = `${node}.`;
      suffixes = ['weight', 'bias', 'running_mean', 'running_var'].filter((s) => parameters.has(prefix + s));
      suffixesOf.set(node, suffixes);
    }
    return Object.fromEntries(suffixes.map((suffix) => [suffix, parameters.get(`${node}.${suffix}`)!]));
  };

  /** Releases and forgets a value. */
  const drop = (values: Map<string, Tensor>, name: string) => {
    release(values.get(name));
    values.delete(name);
  };

  return {
    infer(input, parameters) {
      const values = new Map([[INPUT, input]]);
      for (const [index, { node, layer }] of nodes.entries()) {
        const inputs = node.inputs.map((name) => values.get(name)!);
        values.set(node.name, layer.infer(inputs, parametersOf(node.name, parameters)));
        for (const name of dying[index]!) drop(values, name);
      }
      return values.get(graph.output)!;
    },

    train(input, parameters) {
      const values = new Map([[INPUT, input]]);
      const saved = new Map<string, readonly Tensor[]>();
      const running = new Map<string, Tensor>();
      for (const [index, { node, layer }] of nodes.entries()) {
        const inputs = node.inputs.map((name) => values.get(name)!);
        const result = layer.forward(inputs, parametersOf(node.name, parameters));
        values.set(node.name, result.output);
        saved.set(node.name, result.saved ?? []);
        for (const [suffix, value] of Object.entries(result.running ?? {}))
          running.set(`${node.name}.${suffix}`, value);
        for (const name of dying[index]!) if (!kept.has(name)) drop(values, name);
      }

      const backward: TrainingPass['backward'] = (gradient, onGradient) => {
        const gradients = new Map([[graph.output, gradient]]);
        for (const { node, layer } of nodes.toReversed()) {
          const upstream = gradients.get(node.name);
          if (!upstream) throw new Error(`graph: the value of ${node.name} reaches no output`);
          const { inputs, parameters: own } = layer.backward({
            gradient: upstream,
            inputs: node.inputs.map((name) => values.get(name)!),
            output: values.get(node.name)!,
            saved: saved.get(node.name)!,
            parameters: parametersOf(node.name, parameters),
            wantInputs: node.inputs.some((name) => name !== INPUT),
          });
          drop(gradients, node.name);
          drop(values, node.name);
          release(...saved.get(node.name)!);
          for (const [suffix, value] of Object.entries(own)) onGradient(`${node.name}.${suffix}`, value);
          for (const [position, name] of node.inputs.entries()) {
            const incoming = inputs[position];
            if (!incoming) continue;
            if (name === INPUT) release(incoming);
            else accumulate(gradients, name, incoming);
          }
        }
        drop(values, INPUT);
      };
      return { logits: values.get(graph.output)!, running, backward };
    },

    release() {
      for (const { layer } of nodes) layer.release();
    },
  };
}

/** Adds to the gradient of a value that several nodes read. */
function accumulate(gradients: Map<string, Tensor>, name: string, incoming: Tensor): void {
  const present = gradients.get(name);
  if (!present) {
    gradients.set(name, incoming);
    return;
  }
  gradients.set(name, execute('AddV2', [attribute.float32('T')], [present, incoming]));
  release(present, incoming);
}

export interface Normalization {
  /** Per channel, of values in [0, 1]. */
  mean: readonly number[];
  std: readonly number[];
}

/** uint8 pixels to the network's input: (x / 255 − mean) / std. */
export function createNormalizer({ mean, std }: Normalization) {
  const channels = mean.length;
  const scale = tensor(
    Float32Array.from(std, (s) => 1 / (255 * s)),
    [channels],
  );
  const shift = tensor(
    Float32Array.from(mean, (m, c) => -m / std[c]!),
    [channels],
  );
  const T = attribute.float32('T');
  const cast = [attribute.uint8('SrcT'), attribute.float32('DstT'), attribute.boolean('Truncate', false)];
  return {
    /** `pixels` is `[N, H, W, C]`; the result is the caller's. */
    normalize(pixels: Uint8Array, shape: readonly [number, number, number, number]): Tensor {
      const bytes = tensor(pixels, shape);
      const floats = execute('Cast', cast, [bytes]);
      const scaled = execute('Mul', [T], [floats, scale]);
      const result = execute('AddV2', [T], [scaled, shift]);
      release(bytes, floats, scaled);
      return result;
    },
    release: () => release(scale, shift),
  };
}
