import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type BuiltInScaling, builtInScaling, decideScale, type LoadSample, planScaling } from './scaling.ts';

const it = suite('scaling');

const SCALING: BuiltInScaling = { minReplicas: 1, maxReplicas: 10, perReplica: 4, scaleDownDelaySeconds: 60 };

/** A sample every two seconds. */
const load = (...pending: number[]): LoadSample[] =>
  pending.map((requests, i) => ({ at: i * 2000, pending: requests, complete: true }));
const steady = (seconds: number, pending: number) => load(...Array(seconds / 2 + 1).fill(pending));
const desired = (samples: LoadSample[], replicas: number, scaling = SCALING) =>
  decideScale(scaling, samples, replicas)?.desired ?? replicas;

it('leaves it to spec.replicas where scaling is absent or External, and has defaults where it is neither', () => {
  assert.is(builtInScaling(undefined), undefined);
  assert.is(builtInScaling({ mode: 'External' }), undefined);
  assert.equal(builtInScaling({ maxReplicas: 3 }), {
    minReplicas: 1,
    maxReplicas: 3,
    perReplica: 4,
    scaleDownDelaySeconds: 120,
  });
});

it('has as many replicas at once as the requests of now need', () => {
  assert.equal(decideScale(SCALING, load(0, 9), 2), { desired: 3, reason: 'pending 9 > 4 × 2' });
  assert.is(desired(load(33), 1), 9);
});

it('has at most maxReplicas, and says that they are too few', () => {
  assert.equal(decideScale(SCALING, load(100.26), 2), {
    desired: 10,
    reason: 'pending 100.3 > 4 × 2; maxReplicas is 10',
  });
  assert.is(decideScale(SCALING, load(100), 10), undefined);
});

it('keeps to bounds that were changed, whatever the load', () => {
  assert.is(desired([], 1, { ...SCALING, minReplicas: 3 }), 3);
  assert.is(desired(load(1000), 12), 10);
});

it('has fewer only when fewer were enough for the whole delay', () => {
  assert.is(desired(steady(58, 3), 3), 3);
  assert.equal(decideScale(SCALING, steady(60, 3), 3), {
    desired: 1,
    reason: 'pending at most 3 in 60 s, 4 × 1 is enough',
  });
});

it('goes down only as far as the busiest moment of the delay allows', () => {
  const samples = steady(60, 2);
  samples[20]!.pending = 7;
  assert.is(desired(samples, 4), 2);
  // What the first sample says is about the time before.
  samples[20]!.pending = 2;
  samples[0]!.pending = 7;
  assert.is(desired(samples, 4), 1);
});

it('does not go down where a part of the load could not be read, or nothing was for a time', () => {
  const blind = steady(60, 2);
  blind[10]!.complete = false;
  assert.is(desired(blind, 3), 3);
  const gap = steady(60, 2).filter((_, i) => i < 5 || i > 20);
  assert.is(desired(gap, 3), 3);
});

it('goes up although a part of the load could not be read', () => {
  assert.is(desired([{ at: 0, pending: 9, complete: false }], 1), 3);
});

it('has no replica less right after the operator has started, which has measured nothing yet', () => {
  assert.is(desired([], 5), 5);
  assert.is(desired(load(0), 5), 5);
  assert.is(desired(load(0, 0, 0), 5, { ...SCALING, scaleDownDelaySeconds: 5 }), 5);
});

it('changes nothing after the first change under a load that wavers by a tenth, wherever it lies', () => {
  for (let mean = 0.5; mean < 40; mean += 0.5) {
    let replicas = 1;
    let last: number[] = [];
    const samples: LoadSample[] = [];
    const counts = new Set<number>();
    for (let i = 0; i < 200; i++) {
      // Any fixed sequence within ± 5 %.
      const wavering = mean * (0.95 + ((i * 37) % 100) / 1000);
      samples.push({ at: i * 2000, pending: wavering, complete: true });
      while (samples.length > 31) samples.shift();
      replicas = desired(samples, replicas);
      last = [...last, replicas];
      if (i > 100) counts.add(replicas);
    }
    assert.is(counts.size, 1, `${mean}: ${last}`);
  }
});

it('writes a new status only when the number changes', () => {
  const now = new Date('2026-01-02T03:04:05Z');
  const first = planScaling(SCALING, undefined, [], 3, now);
  assert.equal(first, { desired: 3, reason: 'not scaled yet' });
  assert.is(planScaling(SCALING, first, load(11, 12), 3, now), first);
  const second = planScaling(SCALING, first, load(12, 14), 3, now);
  assert.equal(second, { desired: 4, reason: 'pending 14 > 4 × 3', lastScaleTime: '2026-01-02T03:04:05Z' });
});

it.run();
