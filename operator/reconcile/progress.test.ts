import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createProgressBoard } from './progress.ts';

const it = suite('progress board');

const at = (percent: number) => ({ stage: 'training', percent });

it('shows the first report at once, and the next no sooner than ten seconds later, however many come', () => {
  let now = 0;
  const board = createProgressBoard(() => now);
  assert.is(board.report('p', at(1)), 0);
  assert.equal(board.shown('p'), at(1));
  for (now = 1000; now < 10_000; now += 1000) {
    assert.is(board.report('p', at(now / 1000)), 10_000 - now);
    assert.equal(board.shown('p'), at(1), 'asking does not let it through');
  }
  now = 10_000;
  assert.equal(board.shown('p'), at(9));
});

it('keeps pods apart, and knows nothing of one that never reported', () => {
  const board = createProgressBoard(() => 0);
  board.report('a', at(1));
  board.report('b', at(2));
  assert.equal([board.shown('a'), board.shown('b'), board.shown('c')], [at(1), at(2), undefined]);
});

it.run();
