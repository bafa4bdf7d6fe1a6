import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Model, type ModelCard } from '../contract.ts';
import { initializeWeights, type Weights } from '../models/weights.ts';
import { randomStream } from '../philox.ts';
import { decodeModel, encodeModel, graphOf } from './model-file.ts';
import { decodeSafetensors, encodeSafetensors, SafetensorsError } from './safetensors.ts';

const it = suite('safetensors');

const weights: Weights = new Map([
  ['a', { shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, Number.NaN) }],
  ['b', { shape: [], data: Float32Array.of(-0) }],
  ['empty', { shape: [0, 4], data: new Float32Array(0) }],
]);
const file = Buffer.concat(encodeSafetensors(weights, { who: 'π' }));

/** A file with this header and so many bytes of tensors. */
function fileOf(header: unknown, bytes: number): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, Buffer.alloc(bytes)]);
}

it('reads back what it wrote, bit by bit, and aligns the tensors', () => {
  const { tensors, metadata } = decodeSafetensors(file);
  assert.equal(metadata, { who: 'π' });
  for (const [name, { shape, data }] of weights) {
    assert.equal(tensors.get(name)!.shape, shape);
    assert.equal(Buffer.from(tensors.get(name)!.data.buffer), Buffer.from(data.buffer));
  }
  assert.is(file.readBigUInt64LE() % 8n, 0n);
});

it('refuses a file that is cut off anywhere', () => {
  for (let end = 0; end < file.length; end++) {
    assert.throws(
      () => decodeSafetensors(file.subarray(0, end)),
      (e: unknown) => e instanceof SafetensorsError,
      `${end}`,
    );
  }
  assert.throws(() => decodeSafetensors(Buffer.concat([file, Buffer.from([0])])), /the tensors end at 28/);
});

it('refuses headers that lie, saying where', () => {
  const entry = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };
  const cases: [unknown, number, RegExp][] = [
    [{ t: entry }, 4, /tensor t lies at 0 to 8, and there are 4/],
    [{ t: { ...entry, shape: [3] } }, 8, /shape \[3\] cannot have 8 bytes/],
    [{ t: { ...entry, dtype: 'BF16' } }, 8, /BF16; only F32/],
    [{ t: { ...entry, data_offsets: [8, 0] } }, 8, /lies at 8 to 0/],
    [{ t: { ...entry, data_offsets: [-8, 0] } }, 8, /no proper data_offsets/],
    [{ t: { ...entry, shape: [2 ** 53] } }, 8, /no proper shape/],
    [{ t: { ...entry, shape: 'x' } }, 8, /no proper shape/],
    [{ t: null }, 0, /tensor t has no description/],
    [{ t: entry, u: entry }, 8, /tensor u starts at 0, the one before ends at 8/],
    [{ t: { ...entry, data_offsets: [4, 12] } }, 12, /tensor t starts at 4/],
    [{ __metadata__: { n: 1 } }, 0, /no map of strings/],
    ['[]', 0, /no JSON object/],
    ['{"a":', 0, /not JSON/],
  ];
  for (const [header, bytes, message] of cases) {
    assert.throws(
      () => decodeSafetensors(fileOf(header, bytes)),
      (e: Error) => e instanceof SafetensorsError && message.test(e.message),
      String(message),
    );
  }
  const huge = Buffer.from(file);
  huge.writeBigUInt64LE(2n ** 63n);
  assert.throws(() => decodeSafetensors(huge), /above 100000000/);
});

it('throws nothing but its own error on a thousand damaged headers', () => {
  const random = randomStream(1, 1, 0, 0);
  const end = 8 + Number(file.readBigUInt64LE());
  for (let round = 0; round < 1000; round++) {
    const damaged = Buffer.from(file);
    for (let i = 0; i <= round % 4; i++) damaged[random.integer(end)] = random.integer(256);
    try {
      decodeSafetensors(damaged);
    } catch (error) {
      assert.instance(error, SafetensorsError);
    }
  }
});

const card: ModelCard = {
  format: 'fovea.dev/model/v1',
  model: Model.parse({ name: 'ResNet20' }),
  classes: ['cat', 'dog'],
  preprocessing: {
    format: 'fovea.dev/preprocessing/v1',
    colour: 'Grey',
    height: 32,
    width: 32,
    kernel: 'lanczos3',
    mean: [0.5],
    std: [0.2],
  },
  dataset: `sha256:${'0'.repeat(64)}`,
  epoch: 3,
  metrics: [{ name: 'ValidationAccuracy', value: 0.9 }],
};

it('keeps a model with all it takes to rebuild and feed it', () => {
  const parameters = initializeWeights(graphOf(card), 0);
  const model = decodeModel(Buffer.concat(encodeModel(card, parameters)), 'm');
  assert.equal(model.card, card);
  assert.equal(model.weights.get('layer3.2.bn2.running_var'), parameters.get('layer3.2.bn2.running_var'));
});

it('refuses as a model a file without a card, or whose weights are not those of its graph', () => {
  const isUserError = (pattern: RegExp) => (e: Error) => e.name === 'NotAModel' && pattern.test(e.message);
  assert.throws(() => decodeModel(file, 'x.safetensors'), isUserError(/x\.safetensors.*no `fovea`/));
  const parameters = initializeWeights(graphOf(card), 0);
  parameters.delete('fc.bias');
  assert.throws(
    () => decodeModel(Buffer.concat(encodeModel(card, parameters)), 'x'),
    isUserError(/fc\.bias \[2\] is missing/),
  );
});

it.run();
