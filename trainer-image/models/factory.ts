/**
 * Networks by name, as graphs. Layers are named as in torchvision, so a ResNet-18 with the large stem has its state_dict's keys.
 */
import type { Model } from '../contract.ts';
import { type Graph, type GraphNode, INPUT } from './graph.ts';

export interface ModelInputs {
  /** Channels of the pictures: 3 (RGB) or 1 (Grey). */
  channels: number;
  /** Number of classes: the width of the logits. */
  classes: number;
}

/** `Auto` is `Small` up to this many pixels in the longer direction. */
const SMALL_STEM_UP_TO = 64;

/** The stem that a model gets: what `Auto` means for its input size. ResNet20 has only `Small`. */
export function resolveStem(model: Model): 'Small' | 'Large' {
  if (model.stem !== 'Auto') return model.stem;
  if (model.name === 'ResNet20') return 'Small';
  return Math.max(model.inputSize.height, model.inputSize.width) <= SMALL_STEM_UP_TO ? 'Small' : 'Large';
}

/**
 * The graph of a model.
 * @throws RangeError with a sentence for the user if the model's options exclude each other.
 */
export function createModel(model: Model, inputs: ModelInputs): Graph {
  const stem = resolveStem(model);
  if (model.name === 'ResNet20' && stem === 'Large') {
    throw new RangeError('model.stem: ResNet20 has only the stem `Small`; write `Small` or `Auto`, or use ResNet18');
  }
  const builder = new GraphBuilder();
  const pooled = model.name === 'ResNet20' ? resnet20(builder) : resnet18(builder, stem);
  const logits = builder.add({ op: 'Dense', name: 'fc', inputs: [pooled], units: inputs.classes });
  return { input: { ...model.inputSize, channels: inputs.channels }, nodes: builder.nodes, output: logits };
}

class GraphBuilder {
  readonly nodes: GraphNode[] = [];

  /** Appends a node and returns the name of its value. */
  add(node: GraphNode): string {
    this.nodes.push(node);
    return node.name;
  }

  /** Convolution with padding that keeps the size (at stride 1). */
  conv(name: string, input: string, filters: number, kernel: number, stride: number): string {
    const padding = (kernel - 1) / 2;
    return this.add({
      op: 'Conv',
      name,
      inputs: [input],
      filters,
      kernel: [kernel, kernel],
      stride,
      padding: [padding, padding],
    });
  }

  /** Batch normalization with PyTorch's defaults. */
  norm(name: string, input: string): string {
    return this.add({ op: 'BatchNorm', name, inputs: [input], epsilon: 1e-5, momentum: 0.1 });
  }

  relu(name: string, input: string): string {
    return this.add({ op: 'Relu', name, inputs: [input] });
  }

  /** Basic block (He et al. 2016, figure 5 left); `shortcut` is the value that goes around the two convolutions. */
  basicBlock(name: string, input: string, shortcut: string, filters: number, stride: number): string {
    let x = this.relu(`${name}.relu1`, this.norm(`${name}.bn1`, this.conv(`${name}.conv1`, input, filters, 3, stride)));
    x = this.norm(`${name}.bn2`, this.conv(`${name}.conv2`, x, filters, 3, 1));
    return this.relu(`${name}.relu2`, this.add({ op: 'Add', name: `${name}.add`, inputs: [x, shortcut] }));
  }
}

/** ResNet-20 for small pictures: He et al. 2016, section 4.2, n = 3, shortcuts by option A. 0.27 M parameters. */
function resnet20(g: GraphBuilder): string {
  let x = g.relu('relu1', g.norm('bn1', g.conv('conv1', INPUT, 16, 3, 1)));
  for (const [i, filters] of [16, 32, 64].entries()) {
    for (let block = 0; block < 3; block++) {
      const name = `layer${i + 1}.${block}`;
      const stride = i > 0 && block === 0 ? 2 : 1;
      let shortcut = x;
      if (stride === 2) {
        // The channels double: half of the missing ones in front, half behind.
        const missing = filters / 4;
        shortcut = g.add({ op: 'Subsample', name: `${name}.subsample`, inputs: [x], stride });
        shortcut = g.add({
          op: 'PadChannels',
          name: `${name}.pad`,
          inputs: [shortcut],
          before: missing,
          after: missing,
        });
      }
      x = g.basicBlock(name, x, shortcut, filters, stride);
    }
  }
  return g.add({ op: 'GlobalAveragePool', name: 'avgpool', inputs: [x] });
}

/** ResNet-18 (He et al. 2016, table 1), shortcuts by option B; the `Small` stem is that of the CIFAR variants. */
function resnet18(g: GraphBuilder, stem: 'Small' | 'Large'): string {
  let x = stem === 'Small' ? g.conv('conv1', INPUT, 64, 3, 1) : g.conv('conv1', INPUT, 64, 7, 2);
  x = g.relu('relu1', g.norm('bn1', x));
  if (stem === 'Large') x = g.add({ op: 'MaxPool', name: 'maxpool', inputs: [x], kernel: 3, stride: 2, padding: 1 });
  for (const [i, filters] of [64, 128, 256, 512].entries()) {
    for (let block = 0; block < 2; block++) {
      const name = `layer${i + 1}.${block}`;
      const stride = i > 0 && block === 0 ? 2 : 1;
      let shortcut = x;
      if (stride === 2) {
        shortcut = g.norm(`${name}.downsample.1`, g.conv(`${name}.downsample.0`, x, filters, 1, stride));
      }
      x = g.basicBlock(name, x, shortcut, filters, stride);
    }
  }
  return g.add({ op: 'GlobalAveragePool', name: 'avgpool', inputs: [x] });
}
