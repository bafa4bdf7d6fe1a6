import { connect } from 'node:net';
import sharp, { type Sharp } from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Colour, Model, type ModelCard } from '../../trainer-image/contract.ts';
import { exampleCard, exampleModel } from './example-model.ts';
import { examplePixels, type Served, serveModel } from './served.ts';

const it = suite('built-in server');

const resnet20 = (colour: Colour) =>
  exampleCard(Model.parse({ name: 'ResNet20', inputSize: { height: 16, width: 12 } }), colour);
const card = resnet20('RGB');
const batching = { maxBatchSize: 8, maxQueueDelayMicroseconds: 1000 };
let served: Served;

it.before(async () => {
  served = await serveModel(exampleModel(card).bytes, { batching, maxBodyBytes: 100_000 });
});
it.after(() => served.stop());

interface Classified {
  model: string;
  modelDigest: string;
  predictions: { label: string; index: number; probability: number }[];
}

const post = (url: string, body: NonNullable<RequestInit['body']> | undefined, headers: Record<string, string> = {}) =>
  fetch(url, { method: 'POST', ...(body !== undefined && { body }), headers });
const classifyURL = ({ url } = served) => `${url}/v1/models/shoes:classify`;
const inferURL = ({ url } = served) => `${url}/v2/models/shoes/infer`;

const inferBody = (of: ModelCard, pixels: readonly number[], datatype = 'UINT8') => {
  const { mean, height, width } = of.preprocessing;
  const elements = mean.length * height * width;
  const shape = [pixels.length / elements, mean.length, height, width];
  return JSON.stringify({ inputs: [{ name: 'image', datatype, shape, data: pixels }] });
};

/** [1, C, H, W] pixels as a picture of exactly the network's size. */
function pictureOf(of: ModelCard, pixels: readonly number[]): Sharp {
  const { mean, height, width } = of.preprocessing;
  const channels = mean.length as 1 | 3;
  const interleaved = Buffer.from(
    pixels.map((_, i) => pixels[(i % channels) * height * width + Math.floor(i / channels)]!),
  );
  return sharp(interleaved, { raw: { width, height, channels } });
}

const metricsOf = async ({ url } = served): Promise<Map<string, number>> => {
  const text = await (await fetch(`${url}/metrics`)).text();
  const samples = [...text.matchAll(/^(\w+)\{model="shoes",version="1"(?:,reason="(\w+)")?\} (\S+)$/gm)];
  return new Map(samples.map(([, name, reason, value]) => [reason ? `${name} ${reason}` : name!, Number(value)]));
};

for (const [colour, foldNormalization] of [
  ['RGB', true],
  ['Grey', true],
  ['RGB', false],
] as const) {
  it(`classifies a ${colour} picture as it infers the same pixels (normalization ${foldNormalization ? 'in the graph' : 'outside'})`, async () => {
    const own = resnet20(colour);
    const server = await serveModel(exampleModel(own, { foldNormalization }).bytes);
    try {
      const pixels = examplePixels(own);
      const { mean, std } = own.preprocessing;
      const area = pixels.length / mean.length;
      const channel = (i: number) => Math.floor(i / area);
      const input = foldNormalization ? pixels : pixels.map((v, i) => (v / 255 - mean[channel(i)]!) / std[channel(i)]!);
      const inferred = await post(inferURL(server), inferBody(own, input, foldNormalization ? 'UINT8' : 'FP32'));
      const logits = ((await inferred.json()) as { outputs: { data: number[] }[] }).outputs[0]!.data;

      const answered = await post(classifyURL(server), await pictureOf(own, pixels).png().toBuffer());
      assert.is(answered.status, 200);
      const { model, modelDigest, predictions } = (await answered.json()) as Classified;
      assert.is(model, 'shoes');
      assert.is(modelDigest, server.digest);
      assert.is(predictions.length, 5);

      const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
      const order = logits.map((_, index) => index).sort((a, b) => logits[b]! - logits[a]!);
      for (const [place, { label, index, probability }] of predictions.entries()) {
        assert.is(index, order[place]);
        assert.is(label, own.classes[index]);
        assert.ok(Math.abs(probability - Math.exp(logits[index]!) / sum) < 1e-5);
      }
    } finally {
      await server.stop();
    }
  });
}

it('takes JPEG, PNG and WebP of any size, whatever they are declared as', async () => {
  const large = pictureOf(card, examplePixels(card)).resize(90, 70);
  for (const [bytes, type] of [
    [await large.clone().jpeg().toBuffer(), 'image/jpeg'],
    [await large.clone().png().toBuffer(), 'application/octet-stream'],
    [await large.clone().webp().toBuffer(), 'image/x-whatever'],
    [await large.clone().jpeg().toBuffer(), 'application/x-www-form-urlencoded'],
  ] as const) {
    const answered = await post(classifyURL(), bytes, { 'content-type': type });
    assert.is(answered.status, 200, `${type}: ${await answered.clone().text()}`);
  }
});

it('serves a model of batch size 1 one picture at a time', async () => {
  const server = await serveModel(exampleModel(card, { dynamicBatch: false }).bytes);
  try {
    const one = inferBody(card, examplePixels(card));
    const answers = await Promise.all(Array.from({ length: 6 }, () => post(inferURL(server), one)));
    assert.equal(
      answers.map(({ status }) => status),
      Array(6).fill(200),
    );
    const refused = await post(inferURL(server), inferBody(card, examplePixels(card, 2)));
    assert.is(refused.status, 400);
    assert.match(((await refused.json()) as { error: string }).error, '1 to 1 pictures, not 2');
  } finally {
    await server.stop();
  }
});

it('says in words and by a reason why it refuses a request', async () => {
  const picture = await pictureOf(card, examplePixels(card)).png().toBuffer();
  const cut = await pictureOf(card, examplePixels(card)).resize(200, 200).jpeg().toBuffer();
  const tooLarge = Buffer.alloc(100_001);
  const chunked = () => new Blob([tooLarge]).stream();
  const octets = { 'content-type': 'application/octet-stream' };
  const table: [status: number, reason: string, answer: Promise<Response>][] = [
    [400, 'Empty', post(classifyURL(), undefined)],
    [
      400,
      'UnsupportedFormat',
      post(classifyURL(), Buffer.from('%PDF-1.7 and no picture at all, but long enough'), octets),
    ],
    [400, 'Truncated', post(classifyURL(), cut.subarray(0, cut.length / 2), octets)],
    [413, 'BodyTooLarge', post(classifyURL(), tooLarge, octets)],
    [413, 'BodyTooLarge', fetch(classifyURL(), { method: 'POST', body: chunked(), duplex: 'half' } as RequestInit)],
    [413, 'BodyTooLarge', post(inferURL(), tooLarge)],
    [415, 'UnsupportedMediaType', post(classifyURL(), '{}', { 'content-type': 'application/json' })],
    [415, 'UnsupportedMediaType', post(classifyURL(), picture, { 'content-type': 'multipart/form-data; boundary=a' })],
    [415, 'UnsupportedEncoding', post(classifyURL(), picture, { ...octets, 'content-encoding': 'x-unknown' })],
    [400, 'InvalidRequest', post(inferURL(), 'gzip is something else', { 'content-encoding': 'gzip' })],
    [400, 'InvalidRequest', post(inferURL(), 'not JSON')],
    [404, 'ModelNotFound', post(`${served.url}/v1/models/hats:classify`, picture, octets)],
    [404, 'ModelNotFound', fetch(`${served.url}/v2/models/hats`)],
    [404, 'ModelNotFound', fetch(`${served.url}/v2/models/shoes/versions/7`)],
    [404, 'NotFound', fetch(`${served.url}/v2/models/shoes/infer`)],
    [404, 'NotFound', fetch(`${served.url}/`)],
    [404, 'NotFound', post(`${served.url}/v1/models/shoes:predict`, picture)],
    [400, 'InvalidRequest', fetch(`${served.url}/v2/models/%E0%A4%A`)],
  ];
  for (const [index, [status, reason, answer]] of table.entries()) {
    const answered = await answer;
    const body = (await answered.json()) as { error: string; reason: string };
    assert.equal([answered.status, body.reason], [status, reason], `row ${index}: ${JSON.stringify(body)}`);
    assert.ok(body.error.length > 10);
  }
});

/** Sends bytes and gives what came back until the server closed the connection. */
const raw = (bytes: string | Buffer): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect(Number(new URL(served.url).port), '127.0.0.1', () => socket.write(bytes));
    let answer = '';
    socket.on('data', (chunk) => (answer += chunk));
    // A reset is one way to refuse.
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer));
    socket.setTimeout(20_000, () => reject(new Error(`the connection was left open after ${JSON.stringify(answer)}`)));
  });

it('outlives garbage, and closes what is no HTTP', async () => {
  const noise = (length: number) => Buffer.from(Array.from({ length }, (_, i) => (i * 2654435761) >>> 24));
  const head = 'POST /v2/models/shoes/infer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n';
  const statuses = await Promise.all(
    [
      noise(4096),
      'GET / HTTP/9.9\r\n\r\n',
      `GET /${'a'.repeat(100_000)} HTTP/1.1\r\nHost: a\r\n\r\n`,
      `${head}Content-Length: -5\r\n\r\n`,
      `${head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n`,
      `${head}Transfer-Encoding: chunked\r\n\r\nzz\r\n`,
      `${head}Inference-Header-Content-Length: 9\r\nContent-Length: 2\r\n\r\n{}`,
      `${head}Content-Length: 6\r\n\r\n[[[[[[`,
    ].map(async (bytes) => /^HTTP\/1.1 (\d+)/.exec(await raw(bytes))?.[1]),
  );
  assert.ok(
    statuses.every((status) => status?.startsWith('4')),
    `answered ${statuses}`,
  );
  const deep = '['.repeat(40_000);
  const bodies = [
    noise(50_000),
    deep,
    `{"inputs":[{"name":"image","datatype":"UINT8","shape":[1,3,16,12],"data":${deep}`,
  ];
  for (const body of bodies) {
    for (const url of [inferURL(), classifyURL()]) {
      const answered = await post(url, body, { 'content-type': 'application/octet-stream' });
      assert.is(answered.status, 400);
      await answered.arrayBuffer();
    }
  }
  const answered = await post(inferURL(), inferBody(card, examplePixels(card)));
  assert.is(answered.status, 200);
});

it('hangs up on a sender that does not finish its headers', async () => {
  const started = performance.now();
  const answer = await raw('POST /v2/models/shoes/infer HTTP/1.1\r\nHost: a\r\nX-Slow: ');
  assert.match(answer, /^HTTP\/1.1 408/);
  assert.ok(performance.now() - started < 15_000);
});

it('runs requests that come together as one batch, and counts them with the names of Triton', async () => {
  const server = await serveModel(exampleModel(card).bytes, {
    batching: { maxBatchSize: 4, maxQueueDelayMicroseconds: 5_000_000 },
  });
  try {
    const one = inferBody(card, examplePixels(card));
    const two = inferBody(card, examplePixels(card, 2));
    const picture = await pictureOf(card, examplePixels(card)).png().toBuffer();
    const answers = await Promise.all([
      post(inferURL(server), one),
      post(inferURL(server), two),
      post(classifyURL(server), picture, { 'content-type': 'image/png' }),
    ]);
    assert.equal(
      answers.map(({ status }) => status),
      [200, 200, 200],
    );
    const metrics = await metricsOf(server);
    assert.is(metrics.get('nv_inference_request_success'), 3);
    assert.is(metrics.get('nv_inference_count'), 4);
    assert.is(metrics.get('nv_inference_exec_count'), 1);
    assert.is(metrics.get('nv_inference_pending_request_count'), 0);
    for (const reason of ['REJECTED', 'CANCELED', 'BACKEND']) {
      assert.is(metrics.get(`nv_inference_request_failure ${reason}`), 0);
    }
    const duration = (name: string) => metrics.get(`nv_inference_${name}_duration_us`)!;
    assert.ok(duration('compute_infer') > 0);
    assert.ok(duration('request') >= duration('queue') + duration('compute_infer'));
    for (const name of ['compute_input', 'compute_output']) assert.ok(duration(name) >= 0);
  } finally {
    await server.stop();
  }
});

it('forgets a waiting request whose client leaves', async () => {
  const server = await serveModel(exampleModel(card).bytes, {
    batching: { maxBatchSize: 4, maxQueueDelayMicroseconds: 10_000_000 },
  });
  try {
    const leaving = new AbortController();
    const left = fetch(inferURL(server), {
      method: 'POST',
      body: inferBody(card, examplePixels(card)),
      signal: leaving.signal,
    });
    while ((await metricsOf(server)).get('nv_inference_pending_request_count') !== 1);
    leaving.abort();
    await left.catch(() => {});
    while ((await metricsOf(server)).get('nv_inference_request_failure CANCELED') !== 1);
    const metrics = await metricsOf(server);
    assert.is(metrics.get('nv_inference_pending_request_count'), 0);
    assert.is(metrics.get('nv_inference_exec_count'), 0);
  } finally {
    await server.stop();
  }
});

it('refuses with 503 what would wait behind too many, answers the rest, and answers health at once meanwhile', async () => {
  const slow = exampleCard(Model.parse({ name: 'ResNet18', inputSize: { height: 64, width: 64 } }), 'RGB');
  const server = await serveModel(exampleModel(slow).bytes, {
    batching: { maxBatchSize: 1, maxQueueDelayMicroseconds: 0 },
    threads: 1,
    drainSeconds: 60,
  });
  try {
    const body = inferBody(slow, examplePixels(slow));
    let answered = 0;
    const answers = Array.from({ length: 40 }, async () => {
      const answer = await post(inferURL(server), body);
      await answer.arrayBuffer();
      answered++;
      return answer;
    });
    while ((await metricsOf(server)).get('nv_inference_request_failure REJECTED') === 0);
    assert.is((await fetch(`${server.url}/v2/health/ready`)).status, 200);
    assert.ok(answered < 40, 'health waited for inference');
    const refused = (await Promise.all(answers)).filter(({ status }) => status !== 200);
    assert.ok(refused.length > 0 && refused.length < 40, `${refused.length} of 40 were refused`);
    for (const { status, headers } of refused) assert.equal([status, headers.get('retry-after')], [503, '1']);
  } finally {
    await server.stop();
  }
});

it.run();
