import type { V1Job, V1Pod } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { INDEX_ANNOTATION } from '../manifests/labels.ts';
import { formRing, membership } from './ring.ts';

const it = suite('plan of a ring');

const JOB = { spec: { completions: 2 } } as V1Job;

function pod(rank: number, uid = `u${rank}`, change: Partial<V1Pod> = {}): V1Pod {
  return {
    metadata: { name: `p-${uid}`, uid, annotations: { [INDEX_ANNOTATION]: String(rank) } },
    status: { phase: 'Running', podIP: `10.0.0.${rank}` },
    ...change,
  };
}
const leaving = (rank: number, uid?: string) => {
  const whole = pod(rank, uid);
  return { ...whole, metadata: { ...whole.metadata, deletionTimestamp: new Date() } };
};
const BOTH = [pod(0), pod(1)];
const ALL = new Set(['u0', 'u1']);

it('makes a ring when each index has one pod and all of them ask for it', () => {
  assert.equal(formRing(JOB, BOTH.toReversed(), ALL, undefined), {
    generation: 1,
    members: [
      { rank: 0, pod: 'p-u0', uid: 'u0' },
      { rank: 1, pod: 'p-u1', uid: 'u1' },
    ],
  });
  assert.is(formRing(JOB, BOTH, ALL, { generation: 7, members: [] })?.generation, 8);
});

it('makes none while one is missing, does not ask, has no address, leaves, has ended, or is there twice', () => {
  const table: [string, V1Pod[], Set<string>][] = [
    ['missing', [pod(0)], ALL],
    ['does not ask', BOTH, new Set(['u1'])],
    ['no address', [pod(0), pod(1, 'u1', { status: { phase: 'Pending' } })], ALL],
    ['leaves', [pod(0), leaving(1)], ALL],
    ['has ended', [pod(0), pod(1, 'u1', { status: { phase: 'Failed', podIP: '10.0.0.1' } })], ALL],
    ['twice', [...BOTH, pod(1, 'u2')], new Set([...ALL, 'u2'])],
    ['of no index', [pod(0), pod(2, 'u1')], ALL],
  ];
  for (const [name, pods, joined] of table) assert.is(formRing(JOB, pods, joined, undefined), undefined, name);
});

it('takes the pod that replaces one which leaves', () => {
  const ring = formRing(JOB, [pod(0), leaving(1), pod(1, 'u2')], new Set(['u0', 'u2']), undefined);
  assert.equal(
    ring?.members.map(({ uid }) => uid),
    ['u0', 'u2'],
  );
});

it('tells a member its rank and all addresses', () => {
  const ring = formRing(JOB, BOTH, ALL, undefined);
  assert.equal(membership(ring, JOB, BOTH, 'u1'), {
    generation: 1,
    rank: 1,
    members: [
      { rank: 0, pod: 'p-u0', address: '10.0.0.0' },
      { rank: 1, pod: 'p-u1', address: '10.0.0.1' },
    ],
  });
});

it('tells nothing to one who is in no ring, nor of a ring whose members are not all there', () => {
  const ring = formRing(JOB, BOTH, ALL, undefined);
  assert.is(membership(undefined, JOB, BOTH, 'u1'), undefined);
  assert.is(membership(ring, JOB, [pod(0), pod(1, 'u2')], 'u2'), undefined, 'the replacement is no member');
  assert.is(membership(ring, JOB, [pod(0), pod(1, 'u2')], 'u0'), undefined, 'a member was replaced');
  assert.is(membership(ring, JOB, [pod(0), leaving(1)], 'u0'), undefined, 'a member leaves');
});

it.run();
