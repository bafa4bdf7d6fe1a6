import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Model } from '../../trainer-image/contract.ts';
import { exampleCard, exampleModel } from './example-model.ts';
import { findPython, runPython } from './python.ts';
import { examplePixels, type Served, serveModel } from './served.ts';

/** What a user of Python's tritonclient does, with its defaults; prints what it saw. */
const CLIENT = `
import json, sys, numpy, onnxruntime
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException
address, path, pixels = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = triton.InferenceServerClient(address, concurrency=4)
array = numpy.array(pixels, numpy.uint8).reshape(2, 3, 16, 16)

def image(array, binary, datatype='UINT8'):
    tensor = triton.InferInput('image', list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor

def logits(**options):
    return client.infer('shoes', **options).as_numpy('logits').astype(float).tolist()

def refusal(act):
    try:
        act()
    except InferenceServerException as error:
        return [error.status(), error.message()]

asked = lambda binary: [triton.InferRequestedOutput('logits', binary_data=binary)]
answer = client.infer('shoes', [image(array, True)], request_id='seven')
pending = [client.async_infer('shoes', [image(array[:1], True)]) for _ in range(16)]
print(json.dumps({
  'live': client.is_server_live(), 'ready': client.is_server_ready(),
  'model ready': client.is_model_ready('shoes'), 'version ready': client.is_model_ready('shoes', '1'),
  'server': client.get_server_metadata(), 'model': client.get_model_metadata('shoes'),
  'response': answer.get_response(),
  'expected': onnxruntime.InferenceSession(path).run(None, {'image': array})[0].astype(float).tolist(),
  'logits': {
    'binary': answer.as_numpy('logits').astype(float).tolist(),
    'JSON': logits(inputs=[image(array, False)], outputs=asked(False)),
    'binary in, JSON out': logits(inputs=[image(array, True)], outputs=asked(False)),
    'JSON in, binary out': logits(inputs=[image(array, False)], outputs=asked(True)),
    'gzip': logits(inputs=[image(array, True)], request_compression_algorithm='gzip'),
    'deflate': logits(inputs=[image(array, True)], request_compression_algorithm='deflate'),
    'with a version': logits(inputs=[image(array, True)], model_version='1'),
  },
  'async': [r.get_result().as_numpy('logits').astype(float).tolist()[0] for r in pending],
  'refusals': {
    'shape': refusal(lambda: client.infer('shoes', [image(array[:, :1], True)])),
    'datatype': refusal(lambda: client.infer('shoes', [image(array.astype(numpy.float32), True, 'FP32')])),
    'batch': refusal(lambda: client.infer('shoes', [image(numpy.zeros((9, 3, 16, 16), numpy.uint8), True)])),
    'model': refusal(lambda: client.infer('hats', [image(array, True)])),
    'version': refusal(lambda: client.infer('shoes', [image(array, True)], model_version='2')),
    'output': refusal(lambda: client.infer('shoes', [image(array, True)], outputs=[triton.InferRequestedOutput('scores')])),
    'classification': refusal(lambda: client.infer('shoes', [image(array, True)], outputs=[triton.InferRequestedOutput('logits', class_count=2)])),
  },
}))
`;

interface Seen {
  server: { extensions: string[] };
  model: unknown;
  response: unknown;
  expected: number[][];
  logits: Record<string, number[][]>;
  async: number[][];
  refusals: Record<string, [string, string]>;
  [state: string]: unknown;
}

const found = await findPython();
const it = suite('tritonclient');

if ('missing' in found) {
  console.log(`SKIP: ${found.missing}`);
} else {
  const card = exampleCard(Model.parse({ name: 'ResNet20', inputSize: { height: 16, width: 16 } }), 'RGB');
  let folder: string;
  let served: Served;
  let seen: Seen;
  it.before(async () => {
    const { bytes } = exampleModel(card);
    folder = await mkdtemp(join(tmpdir(), 'fovea-tritonclient-'));
    const path = join(folder, 'model.onnx');
    await writeFile(path, bytes);
    const batching = { maxBatchSize: 8, maxQueueDelayMicroseconds: 2000 };
    served = await serveModel(bytes, { batching });
    const pixels = JSON.stringify(examplePixels(card, 2));
    seen = (await runPython(found.python, CLIENT, [served.url.replace('http://', ''), path, pixels])) as Seen;
  });
  it.after(async () => {
    await served.stop();
    await rm(folder, { recursive: true });
  });

  const assertClose = (got: number[][], expected: number[][], what: string) => {
    for (const [n, row] of expected.entries()) {
      const difference = Math.hypot(...row.map((v, i) => v - got[n]![i]!)) / Math.hypot(...row);
      assert.ok(difference < 1e-5, `${what}: logits differ by ${difference}`);
    }
  };

  it('sees a server and a model that are live and ready', () => {
    for (const state of ['live', 'ready', 'model ready', 'version ready']) assert.is(seen[state], true, state);
  });

  it('reads the metadata of server and model', () => {
    assert.equal(seen.server, { name: 'fovea', version: '1', extensions: ['binary_tensor_data'] });
    assert.equal(seen.model, {
      name: 'shoes',
      versions: ['1'],
      platform: 'onnxruntime_onnx',
      inputs: [{ name: 'image', datatype: 'UINT8', shape: [-1, 3, 16, 16] }],
      outputs: [{ name: 'logits', datatype: 'FP32', shape: [-1, 7] }],
    });
  });

  it("gets the logits of Python's own ONNX Runtime, in JSON, in bytes and compressed", () => {
    for (const [form, logits] of Object.entries(seen.logits)) assertClose(logits, seen.expected, form);
  });

  it('gets its request id back', () => {
    assert.equal(seen.response, {
      model_name: 'shoes',
      model_version: '1',
      id: 'seven',
      outputs: [{ name: 'logits', datatype: 'FP32', shape: [2, 7], parameters: { binary_data_size: 56 } }],
    });
  });

  it('gets the right logits for each of many concurrent requests', () => {
    assert.is(seen.async.length, 16);
    for (const logits of seen.async) assertClose([logits], seen.expected.slice(0, 1), 'concurrent');
  });

  it('shows its user why a request was refused', () => {
    const expected: Record<string, [status: string, message: RegExp]> = {
      shape: ['400', /shape is \[N, 3, 16, 16\], not \[2, 1, 16, 16\]/],
      datatype: ['400', /datatype is UINT8, not "FP32"/],
      batch: ['400', /1 to 8 pictures, not 9/],
      model: ['404', /"hats" is not here/],
      version: ['404', /version 1, not "2"/],
      output: ['400', /"logits", not "scores"/],
      classification: ['400', /classification/],
    };
    for (const [what, [status, message]] of Object.entries(expected)) {
      assert.is(seen.refusals[what]?.[0], status, what);
      assert.match(seen.refusals[what]![1], message);
    }
  });

  it.run();
}
