/** Where workers meet: requests for a ring, held until there is one. In memory: workers whose request is lost ask again. */
import { hkdfSync } from 'node:crypto';
import { RING_POLL_SECONDS, type Ring } from '../../trainer-image/contract.ts';
import { type PodIdentity, Refusal } from './tokens.ts';

/** Where a pod belongs; `refused` if it belongs nowhere. */
export type Seat =
  | { key: string; jobUid: string; membership: Omit<Ring, 'secret'> | undefined }
  | { refused: { status: number; reason: string; message: string } };

export interface RingDeskOptions {
  seatOf: (pod: PodIdentity) => Seat;
  /** A pod of the TrainingJob with this key asks for a ring. */
  onJoin: (key: string) => void;
  /** Longest time that a request is held. */
  pollSeconds?: number;
}

/** A ring that a pod is in, without its secret. */
export interface Found {
  jobUid: string;
  ring: Omit<Ring, 'secret'>;
}

export interface RingDesk {
  /** The ring that the pod is in now, if it is newer than `after`. @throws Refusal if the pod belongs nowhere */
  present(pod: PodIdentity, after: number): Found | undefined;
  /** As `present`, but waits for a ring and counts as asking for it meanwhile; undefined: ask again. @throws Refusal */
  join(pod: PodIdentity, after: number, signal: AbortSignal): Promise<Found | undefined>;
  /** Uids of the pods of a TrainingJob that ask for a ring. */
  joined(key: string): ReadonlySet<string>;
  /** Answers whom it can: something about this TrainingJob has changed. */
  look(key: string): void;
}

interface Waiting {
  pod: PodIdentity;
  after: number;
  settle: (outcome: Found | undefined | Refusal) => void;
}

export function createRingDesk({ seatOf, onJoin, pollSeconds = RING_POLL_SECONDS }: RingDeskOptions): RingDesk {
  const waiting = new Map<string, Map<string, Waiting>>();

  function seat(pod: PodIdentity, after: number): { key: string; found: Found | undefined } {
    const answer = seatOf(pod);
    if ('refused' in answer) {
      const { status, reason, message } = answer.refused;
      throw new Refusal(status, reason, message);
    }
    const { key, jobUid, membership } = answer;
    return { key, found: membership && membership.generation > after ? { jobUid, ring: membership } : undefined };
  }

  return {
    present: (pod, after) => seat(pod, after).found,
    join(pod, after, signal) {
      const { key, found } = seat(pod, after);
      if (found || signal.aborted) return Promise.resolve(found);
      const { promise, resolve, reject } = Promise.withResolvers<Found | undefined>();
      const ofJob = waiting.get(key) ?? new Map<string, Waiting>();
      waiting.set(key, ofJob);
      // Of two requests of one pod the later counts: the earlier's connection may be dead without our knowing.
      ofJob.get(pod.podUid)?.settle(undefined);
      const leave = () => entry.settle(undefined);
      const timer = setTimeout(leave, pollSeconds * 1000);
      const entry: Waiting = {
        pod,
        after,
        settle(outcome) {
          clearTimeout(timer);
          signal.removeEventListener('abort', leave);
          if (ofJob.get(pod.podUid) === entry) ofJob.delete(pod.podUid);
          if (ofJob.size === 0 && waiting.get(key) === ofJob) waiting.delete(key);
          if (outcome instanceof Refusal) reject(outcome);
          else resolve(outcome);
        },
      };
      ofJob.set(pod.podUid, entry);
      waiting.set(key, ofJob);
      signal.addEventListener('abort', leave);
      onJoin(key);
      return promise;
    },
    joined: (key) => new Set(waiting.get(key)?.keys()),
    look(key) {
      for (const { pod, after, settle } of [...(waiting.get(key)?.values() ?? [])]) {
        try {
          const { found } = seat(pod, after);
          if (found) settle(found);
        } catch (error) {
          settle(error as Refusal);
        }
      }
    },
  };
}

/** The ring with the secret of its generation: HKDF-SHA256 (RFC 5869) of the operator's ring key, stored nowhere. */
export function withSecret({ ring, jobUid }: Found, ringKey: Uint8Array): Ring {
  const secret = hkdfSync('sha256', ringKey, jobUid, `fovea ring ${ring.generation}`, 32);
  return { ...ring, secret: Buffer.from(secret).toString('base64') };
}
