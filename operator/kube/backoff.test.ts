import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { backoff } from './backoff.ts';

const it = suite('backoff');

it('doubles with each failure until the cap', () => {
  const longest = [1, 2, 3, 4, 5, 6, 100].map((attempt) => backoff(attempt, 100, 2000, () => 1));
  assert.equal(longest, [100, 200, 400, 800, 1600, 2000, 2000]);
});

it('never waits less than half of it, and parts those that failed together', () => {
  assert.is(
    backoff(3, 100, 2000, () => 0),
    200,
  );
  assert.is(
    backoff(3, 100, 2000, () => 0.5),
    300,
  );
});

it.run();
