import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Model } from '../contract.ts';
import { createModel, resolveStem } from './factory.ts';
import { inferShapes, listParameters, sizeOf } from './graph.ts';

const it = suite('model factory');

const trainableParameters = (model: Model, classes: number, channels = 3) =>
  listParameters(createModel(model, { channels, classes }))
    .filter((p) => p.trainable)
    .reduce((sum, p) => sum + sizeOf(p.shape), 0);

it('builds ResNet-20 with the 0.27 M parameters of the paper', () => {
  assert.is(trainableParameters(Model.parse({ name: 'ResNet20' }), 10), 269_722);
});

it('builds ResNet-18 with the 11.17 M parameters of its CIFAR variant and the 11.69 M of torchvision', () => {
  assert.is(trainableParameters(Model.parse({ name: 'ResNet18' }), 10), 11_173_962);
  const large = Model.parse({ name: 'ResNet18', inputSize: { height: 224, width: 224 } });
  assert.is(trainableParameters(large, 1000), 11_689_512);
});

it('names the parameters of ResNet-18 as torchvision does', () => {
  const names = listParameters(
    createModel(Model.parse({ name: 'ResNet18', stem: 'Large' }), { channels: 3, classes: 10 }),
  ).map((p) => p.name);
  for (const name of ['conv1.weight', 'bn1.running_var', 'layer2.0.downsample.1.bias', 'layer4.1.conv2.weight']) {
    assert.ok(names.includes(name), name);
  }
  // 122 entries of the state_dict less 20 num_batches_tracked
  assert.is(names.length, 102);
});

it('takes the large stem above 64 pixels only, and shrinks pictures by 32 then', () => {
  assert.is(resolveStem(Model.parse({ name: 'ResNet18', inputSize: { height: 64, width: 64 } })), 'Small');
  const large = Model.parse({ name: 'ResNet18', inputSize: { height: 65, width: 224 } });
  assert.is(resolveStem(large), 'Large');
  const graph = createModel(large, { channels: 3, classes: 10 });
  assert.equal(inferShapes(graph).get('layer4.1.relu2'), [3, 7, 512]);
});

it('takes grey pictures of any size that the contract allows', () => {
  for (const [height, width] of [
    [8, 8],
    [28, 28],
    [33, 57],
  ] as const) {
    const graph = createModel(Model.parse({ name: 'ResNet20', inputSize: { height, width } }), {
      channels: 1,
      classes: 3,
    });
    assert.equal(inferShapes(graph).get(graph.output), [3]);
  }
});

it('refuses ResNet20 with a large stem and says what to write', () => {
  const model = Model.parse({ name: 'ResNet20', stem: 'Large' });
  assert.throws(() => createModel(model, { channels: 3, classes: 10 }), /model\.stem.*`Auto`/);
});

it.run();
