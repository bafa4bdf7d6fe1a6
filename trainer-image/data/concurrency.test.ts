import { setImmediate as turn } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createBudget, forEachConcurrently, mapAhead } from './concurrency.ts';

const it = suite('concurrency');

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

/** Work that counts how much of it runs at once. */
function gauge() {
  const seen = { now: 0, most: 0 };
  const work = async <T>(value: T): Promise<T> => {
    seen.now += 1;
    seen.most = Math.max(seen.most, seen.now);
    await turn();
    seen.now -= 1;
    return value;
  };
  return { seen, work };
}

it('works on every item, so many at a time', async () => {
  const { seen, work } = gauge();
  const done: number[] = [];
  await forEachConcurrently(numbers(20), 3, async (i) => void done.push(await work(i)));
  assert.equal(
    done.sort((a, b) => a - b),
    numbers(20),
  );
  assert.equal(seen, { now: 0, most: 3 });
});

it('the first failure stops what has not begun, waits for what has, and is thrown', async () => {
  const { seen, work } = gauge();
  const begun: number[] = [];
  let message = '';
  await forEachConcurrently(numbers(20), 2, async (i) => {
    begun.push(i);
    if (i === 3) throw new Error('the fourth failed');
    await work(i);
  }).catch((error: Error) => {
    message = error.message;
  });
  assert.is(message, 'the fourth failed');
  assert.is(seen.now, 0);
  assert.ok(begun.length <= 5, `${begun.length} were begun`);
});

it('maps in order, and no further ahead than told', async () => {
  const { seen, work } = gauge();
  const results: number[] = [];
  for await (const result of mapAhead(numbers(20), 4, work)) results.push(result);
  assert.equal(results, numbers(20));
  assert.is(seen.most, 4);
});

it('a failure ahead is thrown in its turn', async () => {
  const results: number[] = [];
  let message = '';
  try {
    for await (const result of mapAhead(numbers(9), 4, async (i) => {
      if (i === 2) throw new Error('the third failed');
      return i;
    })) {
      results.push(result);
      await turn();
    }
  } catch (error) {
    message = (error as Error).message;
  }
  assert.equal([results, message], [[0, 1], 'the third failed']);
});

it('a budget is given out first come, first served, so that much is not starved by little', async () => {
  const budget = createBudget(10);
  const order: string[] = [];
  const take = async (name: string, cost: number) => {
    const giveBack = await budget.take(cost);
    order.push(name);
    return giveBack;
  };
  const first = await take('first', 6);
  const large = take('large', 8);
  const small = take('small', 1);
  await turn();
  assert.equal(order, ['first']);
  first();
  (await large)();
  (await small)();
  assert.equal(order, ['first', 'large', 'small']);
});

it('more than the whole budget runs alone', async () => {
  const budget = createBudget(10);
  const giveBack = await budget.take(1000);
  let second = false;
  const waiting = budget.take(1).then(() => {
    second = true;
  });
  await turn();
  assert.not(second);
  giveBack();
  await waiting;
});

it.run();
