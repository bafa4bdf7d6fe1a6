/**
 * Which workers train together: a ring of one pod for each index of a Job, by its generation. A worker that asks for a newer ring
 * than the present says by it that the present one is broken for it; the next is made when every index has asked. Pure.
 */
import type { V1Job, V1Pod } from '@kubernetes/client-node';
import type { Ring } from '../api/trainingjob.ts';
import { hasEnded, isDeleting, rankOf } from './workers.ts';

/** The pods that can be in a ring, by rank; undefined unless each index has exactly one. */
function complete(job: V1Job, pods: readonly V1Pod[]): V1Pod[] | undefined {
  const size = job.spec?.completions ?? 1;
  const byRank: V1Pod[] = [];
  for (const pod of pods) {
    const rank = rankOf(pod);
    if (isDeleting(pod) || hasEnded(pod) || !pod.status?.podIP || rank === undefined || rank >= size) continue;
    if (byRank[rank]) return undefined;
    byRank[rank] = pod;
  }
  return Object.keys(byRank).length === size ? byRank : undefined;
}

/**
 * The next ring, if it can be made.
 *
 * @param pods of the Job
 * @param joined uids of the pods that ask for a ring
 */
export function formRing(
  job: V1Job,
  pods: readonly V1Pod[],
  joined: ReadonlySet<string>,
  before: Ring | undefined,
): Ring | undefined {
  const members = complete(job, pods);
  if (!members?.every((pod) => joined.has(pod.metadata?.uid ?? ''))) return undefined;
  return {
    generation: (before?.generation ?? 0) + 1,
    members: members.map((pod, rank) => ({
      rank,
      pod: pod.metadata?.name ?? '',
      uid: pod.metadata?.uid ?? '',
    })),
  };
}

/** What a member has to know of a ring to take part in it. */
export interface Membership {
  generation: number;
  rank: number;
  members: { rank: number; pod: string; address: string }[];
}

/**
 * A pod's place in the ring that the status tells; undefined if it is in none, or one of the members is there no more, so that
 * nobody would meet all others.
 */
export function membership(
  ring: Ring | undefined,
  job: V1Job,
  pods: readonly V1Pod[],
  uid: string,
): Membership | undefined {
  const rank = ring?.members.find((member) => member.uid === uid)?.rank;
  const present = complete(job, pods);
  if (!ring || rank === undefined || !present) return undefined;
  if (!ring.members.every((member) => present[member.rank]?.metadata?.uid === member.uid)) return undefined;
  return {
    generation: ring.generation,
    rank,
    members: ring.members.map(({ rank: of, pod }) => ({ rank: of, pod, address: present[of].status?.podIP ?? '' })),
  };
}
