import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Model } from '../contract.ts';
import { createModel } from './factory.ts';
import { initializeWeights } from './weights.ts';

const it = suite('first weights');
const graph = createModel(Model.parse({ name: 'ResNet20' }), { channels: 3, classes: 10 });

it('are a function of the seed', () => {
  assert.equal(initializeWeights(graph, 5), initializeWeights(graph, 5));
  assert.not.equal(initializeWeights(graph, 5).get('conv1.weight'), initializeWeights(graph, 6).get('conv1.weight'));
});

it('have the deviations of He et al. in convolutions and the bounds of the dense layer', () => {
  const weights = initializeWeights(graph, 0);
  const { data } = weights.get('layer3.1.conv1.weight')!;
  const deviation = Math.sqrt(data.reduce((a, b) => a + b * b, 0) / data.length);
  assert.ok(Math.abs(deviation / Math.sqrt(2 / (64 * 9)) - 1) < 0.02, `${deviation}`);
  const dense = weights.get('fc.weight')!.data;
  assert.ok(dense.every((w) => Math.abs(w) <= 1 / 8) && dense.some((w) => Math.abs(w) > 0.11));
});

it('differ from layer to layer', () => {
  const weights = initializeWeights(graph, 0);
  assert.not.equal(weights.get('layer1.0.conv1.weight')!.data, weights.get('layer1.0.conv2.weight')!.data);
});

it.run();
