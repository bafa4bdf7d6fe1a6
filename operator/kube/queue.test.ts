import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Queue } from './queue.ts';

const it = suite('queue');

/** What `take` gives without waiting for anything that is not there yet. */
async function takeNow(queue: Queue): Promise<string | undefined> {
  return await Promise.race([
    queue.take(),
    new Promise<undefined>((resolve) => setImmediate(() => resolve(undefined))),
  ]);
}

it('gives keys out in the order in which they came', async () => {
  const queue = new Queue();
  for (const key of ['a', 'b', 'c']) queue.add(key);
  assert.equal([await queue.take(), await queue.take(), await queue.take()], ['a', 'b', 'c']);
});

it('holds a key once however often it is added', async () => {
  const queue = new Queue();
  queue.add('a');
  queue.add('a');
  assert.is(queue.depth(), 1);
  assert.is(await queue.take(), 'a');
  queue.done('a');
  assert.is(queue.depth(), 0);
});

it('does not give out a key that is in work, and gives it once more if it was added meanwhile', async () => {
  const queue = new Queue();
  queue.add('a');
  assert.is(await queue.take(), 'a');
  queue.add('a');
  queue.add('a');
  const next = queue.take();
  assert.is(queue.depth(), 0);
  queue.add('b');
  assert.is(await next, 'b', 'another key does not wait for it');
  queue.done('a');
  assert.is(await queue.take(), 'a');
  queue.done('a');
  assert.is(await takeNow(queue), undefined);
});

it('never has a key in work twice, whatever is added and failed in between', async () => {
  const queue = new Queue({ baseDelay: 1, maxDelay: 4 });
  const inWork = new Set<string>();
  let twice = 0;
  let worked = 0;
  let random = 12345;
  const draw = (below: number) => {
    random = (random * 1103515245 + 12345) & 0x7fffffff;
    return random % below;
  };
  const workers = Array.from({ length: 6 }, async () => {
    for (let key = await queue.take(); key !== undefined; key = await queue.take()) {
      if (inWork.has(key)) twice += 1;
      inWork.add(key);
      for (let turns = draw(4); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
      queue.add(`k${draw(5)}`);
      if (draw(3) === 0) queue.addFailed(key);
      else queue.forget(key);
      inWork.delete(key);
      queue.done(key);
      worked += 1;
      if (worked === 2000) queue.close();
    }
  });
  for (let i = 0; i < 5; i++) queue.add(`k${i}`);
  await Promise.all(workers);
  assert.is(twice, 0);
  assert.ok(worked >= 2000);
});

it('adds a key after its delay, at the earliest of several', async () => {
  const queue = new Queue();
  const started = performance.now();
  queue.addAfter('a', 60_000);
  queue.addAfter('a', 20);
  queue.addAfter('a', 90_000);
  assert.is(queue.depth(), 0);
  assert.is(await queue.take(), 'a');
  assert.ok(performance.now() - started >= 19);
  queue.done('a');
  assert.is(await takeNow(queue), undefined);
  await queue.close();
});

it('takes a delay of nothing, or less, as now', async () => {
  const queue = new Queue();
  queue.addAfter('a', 0);
  queue.addAfter('b', -5);
  queue.addAfter('c', Number.NaN);
  assert.is(queue.depth(), 3);
});

it('waits longer after each failure of a key until it is forgotten', async () => {
  const queue = new Queue({ baseDelay: 10, maxDelay: 1000 });
  const waits: number[] = [];
  const fail = async () => {
    const started = performance.now();
    queue.addFailed('a');
    assert.is(await queue.take(), 'a');
    waits.push(performance.now() - started);
    queue.done('a');
  };
  for (let i = 0; i < 4; i++) await fail();
  queue.forget('a');
  await fail();
  // The n-th wait is drawn from [5, 10] · 2^n ms; timers fire late, never early by more than a millisecond.
  for (const [n, wait] of waits.slice(0, 4).entries()) assert.ok(wait >= 5 * 2 ** n - 1, `wait ${n} was ${wait} ms`);
  assert.ok(waits[4] < waits[3], 'forgotten, it waits as after a first failure');
});

it('tells how many wait and for how long', async () => {
  const queue = new Queue();
  assert.is(queue.age(), 0);
  queue.add('a');
  const started = performance.now();
  while (performance.now() - started < 10) await new Promise((resolve) => setImmediate(resolve));
  queue.add('b');
  assert.is(queue.depth(), 2);
  const age = queue.age();
  assert.ok(age >= 0.01 && age < 1, `the first waited for ${age} s`);
  await queue.take();
  await queue.take();
  assert.is(queue.age(), 0);
});

it('when closed gives out nothing more, and resolves when what is in work is done', async () => {
  const queue = new Queue();
  queue.add('a');
  assert.is(await queue.take(), 'a');
  queue.add('b');
  queue.addAfter('c', 1);
  let closed = false;
  const closing = queue.close().then(() => {
    closed = true;
  });
  assert.is(await queue.take(), undefined);
  queue.add('d');
  assert.is(queue.depth(), 0);
  await new Promise((resolve) => setImmediate(resolve));
  assert.is(closed, false, 'a is still in work');
  queue.done('a');
  await closing;
});

it('when closed lets go those who wait for a key', async () => {
  const queue = new Queue();
  const waiting = queue.take();
  await queue.close();
  assert.is(await waiting, undefined);
});

it.run();
