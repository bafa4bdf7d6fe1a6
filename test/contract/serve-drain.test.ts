import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Model } from '../../trainer-image/contract.ts';
import { exampleCard, exampleModel } from './example-model.ts';
import { examplePixels, serveModel } from './served.ts';

const it = suite('draining');

const card = exampleCard(Model.parse({ name: 'ResNet20' }), 'RGB');
const { bytes } = exampleModel(card);
const body = JSON.stringify({
  inputs: [{ name: 'image', datatype: 'UINT8', shape: [1, 3, 32, 32], data: examplePixels(card) }],
});
const infer = (url: string) => fetch(`${url}/v2/models/shoes/infer`, { method: 'POST', body });

it('answers every request of clients that go elsewhere once it is not ready', async () => {
  const served = await serveModel(bytes);
  let ready = true;
  const ends: string[] = [];
  let begun: () => void;
  const underLoad = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const clients = Array.from({ length: 8 }, async () => {
    while (ready) {
      const end = await infer(served.url).then(
        async (answer) => `${answer.status} ${((await answer.json()) as { outputs?: unknown[] }).outputs && 'logits'}`,
        (error) => String(error.cause?.code ?? error),
      );
      if (ends.push(end) === 50) begun();
    }
  });
  await underLoad;
  const before = ends.length;
  const stopped = served.stop();
  // As a Service's endpoints do, clients learn a little later that it left.
  while (ready) {
    ready = (await fetch(`${served.url}/v2/health/ready`)).ok;
    await Promise.race(clients.map(() => infer(served.url)));
  }
  await Promise.all(clients);
  await stopped;
  assert.equal([...new Set(ends)], ['200 logits']);
  assert.ok(ends.length > before, 'it still answered while it drained');
});

it('answers what came before its port was closed, however long clients keep asking', async () => {
  const served = await serveModel(bytes, { drainSeconds: 2 });
  const ends = new Set<string>();
  const clients = Array.from({ length: 4 }, async () => {
    for (;;) {
      const answer = await infer(served.url).catch(() => undefined);
      if (!answer) return;
      ends.add(`${answer.status} ${((await answer.json()) as { outputs?: unknown[] }).outputs && 'logits'}`);
    }
  });
  await served.stop();
  await Promise.all(clients);
  assert.equal([...ends], ['200 logits']);
});

it('says not ready first, then ends soon when nobody asks', async () => {
  const served = await serveModel(bytes, { drainSeconds: 30 });
  assert.is((await fetch(`${served.url}/v2/health/ready`)).status, 200);
  const started = performance.now();
  const stopped = served.stop();
  const ready = await fetch(`${served.url}/v2/health/ready`);
  assert.is(ready.status, 503);
  assert.is(ready.headers.get('connection'), 'close');
  assert.is((await fetch(`${served.url}/v2/health/live`)).status, 200);
  assert.is((await fetch(`${served.url}/v2/models/shoes/ready`)).status, 503);
  await stopped;
  assert.ok(performance.now() - started < 5000);
  await infer(served.url).then(
    () => assert.unreachable(),
    (error) => assert.is(error.cause.code, 'ECONNREFUSED'),
  );
});

it('cuts off what it cannot answer in time, and says how much', async () => {
  const served = await serveModel(bytes, {
    drainSeconds: 1,
    batching: { maxBatchSize: 4, maxQueueDelayMicroseconds: 10_000_000 },
  });
  const waiting = infer(served.url).then(
    () => 'answered',
    () => 'cut off',
  );
  const pending = async () =>
    /pending_request_count\{[^}]*\} 1/.test(await (await fetch(`${served.url}/metrics`)).text());
  while (!(await pending()));
  await served.stop();
  assert.is(await waiting, 'cut off');
  assert.ok(served.notes.includes('1 requests were not answered within 1 s and were cut off'));
});

it.run();
