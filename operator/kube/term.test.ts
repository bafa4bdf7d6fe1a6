import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../../test/kube-server.ts';
import { Term, TermOver } from './term.ts';

const it = suite('term');

function isOver(term: Term): boolean {
  try {
    term.check();
    return false;
  } catch (error) {
    assert.instance(error, TermOver);
    return true;
  }
}

it('is over at its deadline, also for who asks before a timer could fire', () => {
  const term = new Term(performance.now() + 5);
  assert.not(isOver(term));
  const heldUp = performance.now() + 6;
  while (performance.now() < heldUp);
  assert.not(term.signal.aborted, 'no timer had a chance');
  assert.ok(isOver(term));
  assert.ok(term.signal.aborted && term.windingUp.aborted, 'what is under way is told');
});

it('ends by itself when nobody asks, and not before a deadline that was moved', async () => {
  const term = new Term(performance.now() + 5);
  const moved = performance.now() + 40;
  term.extend(moved);
  await until(() => term.signal.aborted, 'it ends');
  assert.ok(performance.now() >= moved - 2, 'a timer may be a little early');
});

it('stays over', () => {
  const term = new Term(performance.now() + 60_000);
  term.end('the test says so');
  term.extend(performance.now() + 60_000);
  assert.ok(isOver(term));
  assert.is((term.signal.reason as Error).message, 'no longer the leader: the test says so');
});

it('lets what is under way end while it winds up', () => {
  const term = new Term(performance.now() + 60_000);
  term.windUp();
  assert.ok(term.windingUp.aborted);
  assert.not(isOver(term));
  term.end('');
});

it.run();
