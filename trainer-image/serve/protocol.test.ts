import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parseInferRequest, RequestError, renderInferResponse } from './protocol.ts';

const it = suite('Open Inference Protocol');

const uint8 = {
  input: { name: 'image', datatype: 'UINT8' as const, shape: [1, 2, 2] as const, openBatch: true },
  output: { name: 'logits', width: 3 },
};
const float32 = { ...uint8, input: { ...uint8.input, datatype: 'FP32' as const } };

const image = { name: 'image', datatype: 'UINT8', shape: [2, 1, 2, 2] };
const data = [0, 1, 2, 3, 252, 253, 254, 255];
const parse = (
  body: unknown,
  { binary, header, model = uint8 }: { binary?: Buffer; header?: string; model?: typeof uint8 | typeof float32 } = {},
) => {
  const json = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
  const length = header ?? (binary ? String(json.length) : undefined);
  return parseInferRequest(Buffer.concat([json, binary ?? Buffer.alloc(0)]), length, model, 4);
};

it('takes pixels flat and nested alike', () => {
  const nested = [
    [
      [
        [0, 1],
        [2, 3],
      ],
    ],
    [
      [
        [252, 253],
        [254, 255],
      ],
    ],
  ];
  for (const pixels of [data, nested]) {
    const request = parse({ id: 'a', inputs: [{ ...image, data: pixels }] });
    assert.equal(request, { id: 'a', count: 2, pixels: Uint8Array.from(data), binaryOutput: false });
  }
});

it('takes pixels as bytes after the JSON, wherever these begin', () => {
  const parameters = { binary_data_size: 8 };
  for (const id of ['a', 'ab', 'abc', 'abcd']) {
    const request = parse({ id, inputs: [{ ...image, parameters }] }, { binary: Buffer.from(data) });
    assert.equal([...request.pixels], data);
  }
  const floats = Float32Array.of(-1, 0.5, 2, 3);
  const one = { ...image, datatype: 'FP32', shape: [1, 1, 2, 2], parameters: { binary_data_size: 16 } };
  for (const id of ['a', 'ab', 'abc', 'abcd']) {
    const request = parse({ id, inputs: [one] }, { binary: Buffer.from(floats.buffer), model: float32 });
    assert.equal(request.pixels, floats);
  }
});

it('takes one picture as bytes without any JSON', () => {
  const request = parse('', { binary: Buffer.from([9, 8, 7, 6]), header: '0' });
  assert.equal({ ...request, pixels: [...request.pixels] }, { count: 1, pixels: [9, 8, 7, 6], binaryOutput: true });
});

it('answers in bytes where the output, or else the request, asks for it', () => {
  const inputs = [{ ...image, data }];
  const asked = (parameters: unknown, outputs?: unknown) => parse({ inputs, parameters, outputs }).binaryOutput;
  assert.is(asked(undefined), false);
  assert.is(asked({ binary_data_output: true }), true);
  assert.is(asked({ binary_data_output: true }, [{ name: 'logits', parameters: { binary_data: false } }]), false);
  assert.is(asked(undefined, [{ name: 'logits', parameters: { binary_data: true } }]), true);
});

it('names what is wrong with a request', () => {
  const with_ = (change: object) => ({ inputs: [{ ...image, data, ...change }] });
  const binary = Buffer.from(data);
  const table: [body: unknown, expected: RegExp, options?: Parameters<typeof parse>[1]][] = [
    ['{"inputs":', /not JSON/],
    ['', /not JSON/],
    ['null', /the body/],
    ['[]', /the body/],
    [{}, /inputs/],
    [{ inputs: [] }, /one input, "image".*none/],
    [
      {
        inputs: [
          { ...image, data },
          { ...image, data },
        ],
      },
      /one input/,
    ],
    [with_({ name: 'picture' }), /"image".*"picture"/],
    [with_({ datatype: 'FP32' }), /datatype is UINT8, not "FP32"/],
    [with_({ shape: [2, 2, 2, 1] }), /shape is \[N, 1, 2, 2\], not \[2, 2, 2, 1\]/],
    [with_({ shape: [] }), /shape/],
    [with_({ shape: [-2, 1, 2, 2] }), /shape/],
    [with_({ shape: [0, 1, 2, 2], data: [] }), /1 to 4 pictures, not 0/],
    [with_({ shape: [5, 1, 2, 2] }), /1 to 4 pictures, not 5/],
    [with_({ shape: [1e300, 1, 2, 2] }), /shape/],
    [with_({ data: data.slice(1) }), /8 elements, and data has 7/],
    [with_({ data: [...data, 1] }), /8 elements, and data has 9/],
    [with_({ data: undefined }), /data must be an array/],
    [with_({ data: 'AAAA' }), /data must be an array/],
    [with_({ data: [[[[[1]]]]] }), /at most 4 levels/],
    [with_({ data: [256, ...data.slice(1)] }), /data\[0\] is 256/],
    [with_({ data: [0, -1, ...data.slice(2)] }), /data\[1\] is -1/],
    [with_({ data: [0, 0.5, ...data.slice(2)] }), /data\[1\] is 0.5/],
    [with_({ data: [0, null, ...data.slice(2)] }), /data must be an array/],
    [with_({ parameters: { binary_data_size: 8 } }), /binary_data_size is 8, and 0 bytes/],
    [with_({ parameters: { binary_data_size: 8 } }), /both data and binary_data_size/, { binary }],
    [with_({}), /binary_data_size is absent, and 8 bytes/, { binary }],
    [with_({ data: undefined, parameters: { binary_data_size: 7 } }), /8 bytes, not 7/, { binary: binary.subarray(1) }],
    [with_({ parameters: { shared_memory_region: 'x' } }), /shared_memory_region/],
    [{ ...with_({}), parameters: { sequence_id: 3 } }, /sequence_id/],
    [{ ...with_({}), outputs: [{ name: 'scores' }] }, /"logits", not "scores"/],
    [{ ...with_({}), outputs: [{ name: 'logits' }, { name: 'logits' }] }, /2 times/],
    [{ ...with_({}), outputs: [{ name: 'logits', parameters: { classification: 3 } }] }, /classification/],
    [with_({}), /Inference-Header-Content-Length is 100000/, { header: '100000' }],
    [with_({}), /Inference-Header-Content-Length is -1/, { header: '-1' }],
    [with_({}), /Inference-Header-Content-Length is 1e2/, { header: '1e2' }],
    ['', /4 bytes, not 3/, { binary: Buffer.alloc(3), header: '0' }],
  ];
  for (const [body, expected, options] of table) {
    assert.throws(
      () => parse(body, options),
      (error: unknown) => error instanceof RequestError && error.status === 400 && expected.test(error.message),
      `${JSON.stringify(body)} must be refused with ${expected}`,
    );
  }
});

it('refuses numbers that are not finite', () => {
  const one = { ...image, datatype: 'FP32', shape: [1, 1, 2, 2] };
  const overflow = JSON.stringify({ inputs: [{ ...one, data: [1, 2, 3, 4] }] }).replace('[1,2,3,4]', '[1,1e999,3,4]');
  assert.throws(() => parse(overflow, { model: float32 }), /data\[1\] is Infinity/);
  const binary = Buffer.from(Float32Array.of(1, 2, Number.NaN, 4).buffer);
  const request = { inputs: [{ ...one, parameters: { binary_data_size: 16 } }] };
  assert.throws(() => parse(request, { binary, model: float32 }), /element 2 is NaN/);
});

it('renders logits as JSON, or as bytes of the same numbers', () => {
  const logits = Float32Array.of(0, 0.1, -2, 1, 2, 3).subarray(3);
  const request = { id: 'q', count: 1, pixels: Uint8Array.of(), binaryOutput: false };
  const text = renderInferResponse(request, logits, 'shoes', uint8.output);
  assert.equal(JSON.parse(text.json), {
    model_name: 'shoes',
    model_version: '1',
    id: 'q',
    outputs: [{ name: 'logits', datatype: 'FP32', shape: [1, 3], data: [1, 2, 3] }],
  });
  assert.not.ok(text.binary);
  const bytes = renderInferResponse({ ...request, binaryOutput: true }, logits, 'shoes', uint8.output);
  assert.equal(JSON.parse(bytes.json).outputs[0].parameters, { binary_data_size: 12 });
  assert.equal(new Float32Array(bytes.binary!.slice().buffer), Float32Array.of(1, 2, 3));
});

it.run();
