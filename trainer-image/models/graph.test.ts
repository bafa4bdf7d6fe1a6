import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Graph, inferShapes, listParameters } from './graph.ts';

const it = suite('graph');

const conv = (over: object = {}): Graph => ({
  input: { height: 9, width: 8, channels: 3 },
  nodes: [
    {
      op: 'Conv',
      name: 'c',
      inputs: ['input'],
      filters: 4,
      kernel: [3, 3],
      stride: 2,
      padding: [1, 1],
      ...over,
    },
  ],
  output: 'c',
});

it('infers the size of a strided convolution as PyTorch does', () => {
  assert.equal(inferShapes(conv()).get('c'), [5, 4, 4]);
  assert.equal(inferShapes(conv({ padding: [0, 0] })).get('c'), [4, 3, 4]);
});

it('lists parameters with the names and layouts of a state_dict', () => {
  const graph: Graph = {
    ...conv(),
    nodes: [
      ...conv().nodes,
      { op: 'BatchNorm', name: 'n', inputs: ['c'], epsilon: 1e-5, momentum: 0.1 },
      { op: 'GlobalAveragePool', name: 'p', inputs: ['n'] },
      { op: 'Dense', name: 'fc', inputs: ['p'], units: 2 },
    ],
    output: 'fc',
  };
  assert.equal(
    listParameters(graph).map((p) => `${p.name} ${p.shape} ${p.trainable}`),
    [
      'c.weight 4,3,3,3 true',
      'n.weight 4 true',
      'n.bias 4 true',
      'n.running_mean 4 false',
      'n.running_var 4 false',
      'fc.weight 2,4 true',
      'fc.bias 2 true',
    ],
  );
});

it('names the node whose input no earlier node makes', () => {
  assert.throws(() => inferShapes(conv({ inputs: ['later'] })), /node c takes later/);
});

it('names the node whose input is smaller than its kernel', () => {
  assert.throws(() => inferShapes(conv({ kernel: [12, 12] })), /node c \(Conv\) cannot take \[9,8,3\]/);
});

it('refuses two nodes of one name, and an output that no node makes', () => {
  assert.throws(() => inferShapes({ ...conv(), nodes: [...conv().nodes, ...conv().nodes] }), /two values are named c/);
  assert.throws(() => inferShapes({ ...conv(), output: 'x' }), /output x/);
});

it.run();
