import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeModel, type OnnxModel, readHeader } from './onnx.ts';

const it = suite('ONNX files');

const model: OnnxModel = {
  irVersion: 8,
  opset: 17,
  producerName: 'fovea',
  producerVersion: '',
  metadata: { 'fovea.classes': '["a","ü"]' },
  graph: {
    name: 'identity',
    nodes: [{ opType: 'Add', name: 'add', inputs: ['x', 'w'], outputs: ['y'] }],
    initializers: [{ name: 'w', dataType: 'FP32', shape: [2], data: Float32Array.of(1, 2) }],
    inputs: [{ name: 'x', dataType: 'FP32', shape: ['N', 2] }],
    outputs: [{ name: 'y', dataType: 'FP32', shape: ['N', 2] }],
  },
};

it('says what was written into a file', () => {
  assert.equal(readHeader(encodeModel(model)), {
    irVersion: 8,
    opset: 17,
    producerName: 'fovea',
    metadata: { 'fovea.classes': '["a","ü"]' },
  });
});

it('refuses bytes that are no ONNX, cut files included, with a sentence', () => {
  const whole = encodeModel(model);
  for (const bytes of [Buffer.from('not a model'), Buffer.alloc(64), Buffer.alloc(0), whole.subarray(0, 60)]) {
    assert.throws(
      () => readHeader(bytes),
      (error: unknown) => error instanceof RangeError && /not an ONNX file/.test(error.message),
    );
  }
});

it('refuses a tensor that is read from another file', () => {
  const whole = encodeModel(model);
  // The initializer's raw_data (field 9, 8 bytes) gives way to data_location (field 14) = EXTERNAL.
  const at = Buffer.from(whole).indexOf(Buffer.from([0x4a, 8]));
  const external = Buffer.from(whole);
  Buffer.from([0x70, 1, 0x70, 1, 0x70, 1, 0x70, 1, 0x70, 1]).copy(external, at);
  assert.throws(() => readHeader(external), /tensor "w".*another file/);
});

it('refuses weights that do not fit one file before it makes it', () => {
  const data = { byteLength: 2 ** 31, buffer: new ArrayBuffer(0), byteOffset: 0 } as unknown as Float32Array;
  const huge = { ...model, graph: { ...model.graph, initializers: [{ ...model.graph.initializers[0]!, data }] } };
  assert.throws(() => encodeModel(huge), /at most 2 GiB/);
});

it.run();
