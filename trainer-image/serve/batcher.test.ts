import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Batcher, type BatchObserver, decideBatch, InferenceError, OverloadError, type RunResult } from './batcher.ts';

const it = suite('dynamic batching');

const silent: BatchObserver = { pending() {}, ran() {} };
const never = new AbortController().signal;

/** A network of one class whose logit is the picture's one value; each run ends when the test says so. */
function steppedNetwork() {
  const runs: { values: number[]; end(): void; fail(message: string): void }[] = [];
  const run = (pixels: Uint8Array | Float32Array, count: number) =>
    new Promise<RunResult>((resolve, reject) => {
      assert.is(pixels.length, count);
      runs.push({
        values: [...pixels],
        end: () => resolve({ logits: Float32Array.from(pixels), computeTime: 1 }),
        fail: (message) => reject(new Error(message)),
      });
    });
  return { runs, run };
}

const limits = { maxBatchSize: 4, maxDelay: 0, maxQueued: 100 };

it('decides by size, fit and age', () => {
  const queue = (...requests: [count: number, arrived: number][]) =>
    requests.map(([count, arrived]) => ({ count, arrived }));
  const bounds = { maxBatchSize: 4, maxDelay: 10 };
  const table: [ReturnType<typeof queue>, number, ReturnType<typeof decideBatch>][] = [
    [queue(), 0, { wait: Number.POSITIVE_INFINITY }],
    [queue([1, 0]), 3, { wait: 7 }],
    [queue([1, 0]), 10, { take: 1 }],
    [queue([1, 0], [1, 5]), 9, { wait: 1 }],
    [queue([1, 0], [3, 5]), 5, { take: 2 }],
    [queue([3, 0], [2, 1]), 2, { take: 1 }],
    [queue([1, 0], [1, 0], [1, 0], [1, 0], [1, 0]), 0, { take: 4 }],
    [queue([4, 0]), 0, { take: 1 }],
  ];
  for (const [waiting, now, expected] of table) assert.equal(decideBatch(waiting, now, bounds), expected);
});

it('runs what came during a run as one batch, in order, and gives everybody their own logits', async () => {
  const { runs, run } = steppedNetwork();
  const batcher = new Batcher(limits, run, silent);
  const answers = [
    batcher.submit(Uint8Array.of(1), 1, never),
    batcher.submit(Uint8Array.of(2, 3), 2, never),
    batcher.submit(Uint8Array.of(4), 1, never),
    batcher.submit(Uint8Array.of(5, 6), 2, never),
  ];
  assert.equal(
    runs.map(({ values }) => values),
    [[1]],
  );
  runs[0]!.end();
  assert.equal([...(await answers[0]!)], [1]);
  assert.equal(runs[1]!.values, [2, 3, 4]);
  runs[1]!.end();
  assert.equal([...(await answers[1]!)], [2, 3]);
  assert.equal([...(await answers[2]!)], [4]);
  assert.equal(runs[2]!.values, [5, 6]);
  runs[2]!.end();
  assert.equal([...(await answers[3]!)], [5, 6]);
});

it('waits for a batch to fill, and no longer than it may', async () => {
  const { runs, run } = steppedNetwork();
  const batcher = new Batcher({ ...limits, maxDelay: 20 }, run, silent);
  const started = performance.now();
  const alone = batcher.submit(Uint8Array.of(1), 1, never);
  assert.is(runs.length, 0);
  while (runs.length === 0) await new Promise(setImmediate);
  const waited = performance.now() - started;
  assert.ok(waited >= 19 && waited < 1000, `waited ${waited} ms`);
  runs[0]!.end();
  await alone;
  const four = [1, 2, 3, 4].map((value) => batcher.submit(Uint8Array.of(value), 1, never));
  assert.equal(runs[1]!.values, [1, 2, 3, 4]);
  runs[1]!.end();
  await Promise.all(four);
});

it('fails the requests of a failed run and goes on with the others', async () => {
  const { runs, run } = steppedNetwork();
  const batcher = new Batcher(limits, run, silent);
  const first = batcher.submit(Uint8Array.of(1), 1, never);
  const second = batcher.submit(Uint8Array.of(2), 1, never);
  runs[0]!.fail('out of memory');
  await first.then(
    () => assert.unreachable(),
    (error: Error) => {
      assert.instance(error, InferenceError);
      assert.match(error.message, 'out of memory');
    },
  );
  while (runs.length < 2) await new Promise(setImmediate);
  runs[1]!.end();
  assert.equal([...(await second)], [2]);
});

it('does not run a request whose sender has left while it waited', async () => {
  const { runs, run } = steppedNetwork();
  const pending: number[] = [];
  const batcher = new Batcher(limits, run, { ...silent, pending: (requests) => pending.push(requests) });
  const first = batcher.submit(Uint8Array.of(1), 1, never);
  const leaving = new AbortController();
  const left = batcher.submit(Uint8Array.of(2), 1, leaving.signal);
  const third = batcher.submit(Uint8Array.of(3), 1, never);
  leaving.abort(new Error('gone'));
  await left.then(
    () => assert.unreachable(),
    (error: Error) => assert.is(error.message, 'gone'),
  );
  runs[0]!.end();
  await first;
  assert.equal(runs[1]!.values, [3]);
  runs[1]!.end();
  await third;
  assert.is(pending.at(-1), 0);
});

it('refuses at once what would wait behind too many', async () => {
  const { runs, run } = steppedNetwork();
  const batcher = new Batcher({ ...limits, maxQueued: 2 }, run, silent);
  const first = batcher.submit(Uint8Array.of(1), 1, never);
  const second = batcher.submit(Uint8Array.of(2, 3), 2, never);
  await batcher.submit(Uint8Array.of(4), 1, never).then(
    () => assert.unreachable(),
    (error: unknown) => assert.instance(error, OverloadError),
  );
  runs[0]!.end();
  await first;
  runs[1]!.end();
  await second;
});

it('tells the observer how many pictures ran and how long each request waited', async () => {
  const { runs, run } = steppedNetwork();
  const ran: Parameters<BatchObserver['ran']>[0][] = [];
  const batcher = new Batcher(limits, run, { ...silent, ran: (batch) => ran.push(batch) });
  const answers = [1, 2, 3].map((value) => batcher.submit(Uint8Array.of(value), 1, never));
  runs[0]!.end();
  await answers[0];
  runs[1]!.end();
  await Promise.all(answers);
  assert.equal(
    ran.map(({ pictures, queueTimes }) => [pictures, queueTimes.length]),
    [
      [1, 1],
      [2, 2],
    ],
  );
  assert.ok(ran.flatMap(({ queueTimes }) => queueTimes).every((time) => time >= 0));
});

it.run();
