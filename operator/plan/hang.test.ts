import type { V1Pod } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Progress } from '../../trainer-image/contract.ts';
import { INDEX_ANNOTATION } from '../manifests/labels.ts';
import { findHang, type WorkerReport } from './hang.ts';

const it = suite('hang detection');

const PODS: V1Pod[] = [0, 1, 2].map((rank) => ({
  metadata: { name: `p${rank}`, uid: `u${rank}`, annotations: { [INDEX_ANNOTATION]: String(rank) } },
}));

type Said = Partial<Progress> & { standing?: number; age?: number; known?: number };
/** What each of the three said; undefined: nothing. */
function find(said: (Said | undefined)[], runningSeconds = 10_000, timeout = 600) {
  const reports = new Map<string, WorkerReport>();
  said.forEach((given, rank) => {
    if (!given) return;
    const { standing = 700, age = 5, known = 3600, ...progress } = given;
    reports.set(`u${rank}`, {
      progress: { stage: 'training', percent: 10, step: 120, ...progress },
      ageSeconds: age,
      knownSeconds: known,
      standingSeconds: standing,
    });
  });
  return findHang(PODS, reports, timeout, runningSeconds);
}
const slow = (...given: Parameters<typeof find>) => find(...given)?.slow?.metadata?.name;

const WAITS = { activity: 'Exchanging' } as const;
const WORKS = { activity: 'Computing' } as const;

it('names the worker that computes while the others exchange, with the first lines of its stack', () => {
  const hang = find([WAITS, { ...WORKS, stack: 'at conv2d\n  at forward\nat a\nat b\nat c' }, WAITS]);
  assert.is(hang?.slow?.metadata?.name, 'p1');
  assert.is(
    hang?.message,
    'Steps stand still at 120 for more than 600 s: rank 1 (pod p1) is Computing while others wait. Its stack: at conv2d | at forward | at a | at b',
  );
});

it('names the worker that does not report while the others exchange', () => {
  for (const silent of [undefined, { ...WAITS, age: 61 }]) {
    const hang = find([WAITS, WAITS, silent]);
    assert.is(hang?.slow?.metadata?.name, 'p2');
    assert.match(hang?.message ?? '', 'rank 2 (pod p2) does not report');
  }
});

it('takes nobody for silent who may not have had the time to report, after the operator started anew', () => {
  const heard = { ...WAITS, known: 59 };
  assert.is(find([heard, heard, undefined]), undefined);
  assert.is(slow([heard, { ...WORKS, known: 1 }, undefined]), 'p1', 'what is seen counts');
  assert.is(slow([heard, { ...heard, known: 60 }, undefined]), 'p2');
});

it('tells the one that is seen at work from the one that is silent, and of several the least far', () => {
  assert.is(slow([undefined, WORKS, WAITS]), 'p1');
  assert.is(slow([WORKS, { ...WORKS, step: 119 }, WAITS]), 'p1');
  assert.is(slow([{ activity: 'Saving' }, WAITS, WAITS]), 'p0', 'a checkpoint that is never written');
});

it('is no hang while any worker that is furthest got there within the time', () => {
  assert.is(find([WAITS, { ...WORKS, standing: 599 }, WAITS]), undefined);
  assert.ok(find([WAITS, { ...WORKS, step: 100, standing: 5 }, WAITS]), 'one that lags behind does not count');
});

it('is no hang while not all have run for that long', () => {
  assert.is(find([WAITS, WORKS, WAITS], 599), undefined);
});

it('is no hang where nobody says anything, or nobody has begun', () => {
  assert.is(find([undefined, undefined, undefined]), undefined);
  assert.is(find([{ ...WAITS, age: 61 }, undefined, undefined]), undefined);
  assert.is(find([{ step: undefined }, { step: undefined }, { step: undefined }]), undefined);
});

it('takes the last when all wait for each other, and nobody when all wait for a ring', () => {
  assert.is(slow([WAITS, WAITS, WAITS]), 'p2');
  assert.is(slow([WAITS, { ...WAITS, step: 119 }, WAITS]), 'p1');
  const waiting = { activity: 'WaitingForRing' } as const;
  const hang = find([waiting, waiting, waiting]);
  assert.is(hang?.slow, undefined);
  assert.match(hang?.message ?? '', 'all workers wait for a ring');
});

it.run();
