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

/** Asks until nobody listens any more; says how each request ended. */
async function askUntilGone(url: string, onAnswer: () => void): Promise<string[]> {
  const ends: string[] = [];
  for (;;) {
    try {
      const answer = await infer(url);
      ends.push(`${answer.status} ${((await answer.json()) as { outputs?: unknown[] }).outputs ? 'logits' : 'error'}`);
      onAnswer();
    } catch (error) {
      const { code } = (error as { cause: { code: string } }).cause;
      ends.push(code);
      if (code === 'ECONNREFUSED') return ends;
    }
  }
}

it('answers every request that it takes, while clients keep asking', async () => {
  const served = await serveModel(bytes);
  let answers = 0;
  let begun: () => void;
  const underLoad = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const clients = Array.from({ length: 8 }, () =>
    askUntilGone(served.url, () => {
      if (++answers === 50) begun();
    }),
  );
  await underLoad;
  const before = answers;
  await served.stop();
  for (const ends of await Promise.all(clients)) {
    assert.is(ends.pop(), 'ECONNREFUSED');
    // A connection that the kernel had made and the server not yet taken is reset when it stops listening: no request was
    // taken, and a client may safely send it again.
    if (ends.at(-1) === 'ECONNRESET') ends.pop();
    assert.equal([...new Set(ends)], ['200 logits'], JSON.stringify(ends));
  }
  assert.ok(answers > before, 'it still answered while it drained');
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
