import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Model } from '../contract.ts';
import { createModel } from '../models/factory.ts';
import { type Graph, INPUT } from '../models/graph.ts';
import { foldBatchNorms } from './fold.ts';
import { evaluate, randomWeights } from './reference.ts';

const it = suite('batch-norm folding');

const pixelsOf = ({ input }: Graph) =>
  Float64Array.from({ length: input.height * input.width * input.channels }, (_, i) => Math.sin(i * 12.9898));

/** ‖a − b‖ / ‖b‖ */
function relativeDifference(a: Float64Array, b: Float64Array): number {
  return Math.hypot(...a.map((v, i) => v - b[i]!)) / Math.hypot(...b);
}

for (const model of [
  Model.parse({ name: 'ResNet20', inputSize: { height: 9, width: 12 } }),
  Model.parse({ name: 'ResNet18', inputSize: { height: 8, width: 8 }, stem: 'Large' }),
]) {
  it(`leaves ${model.name} without batch normalizations and with the same logits`, () => {
    const graph = createModel(model, { channels: 3, classes: 7 });
    const weights = randomWeights(graph);
    const folded = foldBatchNorms(graph, weights);
    assert.not.ok(folded.graph.nodes.some((node) => node.op === 'BatchNorm'));
    const pixels = pixelsOf(graph);
    const difference = relativeDifference(
      evaluate(folded.graph, folded.weights, pixels),
      evaluate(graph, weights, pixels),
    );
    assert.ok(difference < 1e-6, `differs by ${difference}`);
  });
}

it('changes neither the graph nor the weights it is given', () => {
  const graph = createModel(Model.parse({ name: 'ResNet20' }), { channels: 1, classes: 2 });
  const weights = randomWeights(graph);
  const before = structuredClone({ graph, weights });
  foldBatchNorms(graph, weights);
  assert.equal({ graph, weights }, before);
});

it('keeps a normalization whose convolution is also used elsewhere, or that follows none', () => {
  const graph: Graph = {
    input: { height: 4, width: 4, channels: 2 },
    nodes: [
      { op: 'BatchNorm', name: 'first', inputs: [INPUT], epsilon: 1e-5, momentum: 0.1 },
      { op: 'Conv', name: 'conv', inputs: ['first'], filters: 2, kernel: [1, 1], stride: 1, padding: [0, 0] },
      { op: 'BatchNorm', name: 'norm', inputs: ['conv'], epsilon: 1e-5, momentum: 0.1 },
      { op: 'Add', name: 'sum', inputs: ['norm', 'conv'] },
      { op: 'GlobalAveragePool', name: 'pool', inputs: ['sum'] },
    ],
    output: 'pool',
  };
  const weights = randomWeights(graph);
  const folded = foldBatchNorms(graph, weights);
  assert.equal(folded.graph.nodes, graph.nodes);
  assert.equal(evaluate(folded.graph, folded.weights, pixelsOf(graph)), evaluate(graph, weights, pixelsOf(graph)));
});

it('names the weights that a model lacks', () => {
  const graph = createModel(Model.parse({ name: 'ResNet20' }), { channels: 3, classes: 2 });
  const weights = randomWeights(graph);
  weights.delete('layer1.0.bn2.running_var');
  assert.throws(() => foldBatchNorms(graph, weights), /layer1\.0\.bn2\.running_var/);
});

it.run();
