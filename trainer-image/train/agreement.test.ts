import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { decide } from './agreement.ts';

const it = suite('agreement');
const [a, b] = ['a', 'b'].map((digit) => `sha256:${digit.repeat(64)}`) as [string, string];
const at = (done: number, digest = a) => ({ done, digest });

it('a state that nobody has is begun', () => {
  assert.is(decide([undefined, undefined]), 'nobody');
});

it('the furthest state wins, from the lowest rank that has it', () => {
  assert.equal(decide([undefined, at(5), at(5)]), { from: 1, lacking: true });
  assert.equal(decide([at(4), at(5), undefined, at(5)]), { from: 1, lacking: true });
  assert.equal(decide([at(4, b), at(5)]), { from: 1, lacking: true });
  assert.equal(decide([at(0), undefined]), { from: 0, lacking: true });
});

it('nobody lacks what all have', () => {
  assert.equal(decide([at(5), at(5)]), { from: 0, lacking: false });
});

it('different weights at the same step are a failure that names the ranks', () => {
  assert.throws(
    () => decide([at(4), at(5), at(5, b)]),
    (error: Error) => error.name === 'RanksDiverged' && /ranks 1 and 2/.test(error.message),
  );
});

it.run();
