import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Progress } from '../../trainer-image/contract.ts';
import { createProgressBoard } from './progress.ts';

const it = suite('progress board');

const at = (percent: number, change: Partial<Progress> = {}): Progress => ({ stage: 'training', percent, ...change });

it('shows the first report at once, and the next no sooner than ten seconds later, however many pods send', () => {
  let now = 0;
  const board = createProgressBoard(() => now);
  assert.is(board.report('job', 'p', at(1)), 0);
  assert.equal(board.shown('job', ['p', 'q']), at(1));
  for (now = 1000; now < 10_000; now += 1000) {
    assert.is(board.report('job', now % 2000 === 0 ? 'p' : 'q', at(now / 1000)), 10_000 - now);
    assert.equal(board.shown('job', ['p', 'q']), at(1), 'asking does not let it through');
  }
  now = 10_000;
  assert.equal(board.shown('job', ['p', 'q']), at(9));
});

it('shows the pod that is furthest, of equals the first, and none that is not asked for', () => {
  const board = createProgressBoard(() => 0);
  board.report('job', 'gone', at(90, { step: 90 }));
  board.report('job', 'a', at(10, { step: 10, epoch: 1 }));
  board.report('job', 'b', at(10, { step: 11 }));
  board.report('job', 'c', at(10, { step: 11, epoch: 2 }));
  assert.is(board.shown('job', ['a', 'b', 'c'])?.step, 11);
  assert.is(board.shown('job', ['a', 'b', 'c'])?.epoch, undefined);
});

it('keeps objects apart, and knows nothing of one that never reported', () => {
  const board = createProgressBoard(() => 0);
  board.report('a', 'p', at(1));
  board.report('b', 'p', at(2));
  assert.equal([board.shown('a', ['p']), board.shown('b', ['p']), board.shown('c', ['p'])], [at(1), at(2), undefined]);
});

it('measures since when a pod stands still, and starts anew with each step and each ring', () => {
  let now = 0;
  const board = createProgressBoard(() => now);
  const standing = () => board.reports('job').get('p')?.standingSeconds;
  const report = (time: number, change: Partial<Progress>) => {
    now = time * 1000;
    board.report('job', 'p', at(1, change));
    return standing();
  };
  assert.is(report(0, { step: 5, generation: 1 }), 0);
  assert.is(report(20, { step: 5, generation: 1 }), 20);
  assert.is(report(30, { step: 6, generation: 1 }), 0);
  assert.is(report(50, { step: 6, generation: 1 }), 20);
  assert.is(report(60, { step: 6, generation: 2, standingSeconds: 30 }), 0, 'the ring is new');
  now = 75_000;
  assert.equal([standing(), board.reports('job').get('p')?.ageSeconds], [15, 15]);
});

it('believes a pod that stood still before the board knew it', () => {
  const board = createProgressBoard(() => 0);
  board.report('job', 'p', at(1, { step: 5, standingSeconds: 40 }));
  assert.is(board.reports('job').get('p')?.standingSeconds, 40);
});

it('forgets the pods that are gone', () => {
  const board = createProgressBoard(() => 0);
  for (const pod of ['a', 'b', 'c']) board.report('job', pod, at(1));
  board.keep('job', ['b']);
  assert.equal([...board.reports('job').keys()], ['b']);
  board.keep('job', []);
  assert.is(board.shown('job', ['b']), undefined);
});

it.run();
