/**
 * What workers reported last, of each object's pods. What is shown of an object changes at most once in ten seconds, however many
 * pods report. Lost with the process, on purpose.
 */
import type { Progress } from '../../trainer-image/contract.ts';
import type { WorkerReport } from '../plan/hang.ts';

const INTERVAL = 10_000;

export interface ProgressBoard {
  /** Takes a pod's report; returns in how many ms it may be shown. @param key of the object, with its kind */
  report(key: string, podUid: string, progress: Progress): number;
  /** What may be shown of an object: the latest of the pod that is furthest; of equals the first of `podUids`. */
  shown(key: string, podUids: readonly string[]): Progress | undefined;
  /** The latest report of each pod of an object, by uid. */
  reports(key: string): Map<string, WorkerReport>;
  /** Forgets all pods of an object but these. */
  keep(key: string, podUids: readonly string[]): void;
}

interface Worker {
  latest: Progress;
  /** When it came. */
  at: number;
  /** When the first came. */
  first: number;
  /** Since when its step, stage and ring are what they are. */
  since: number;
}

interface Entry {
  workers: Map<string, Worker>;
  shown: Progress | undefined;
  shownAt: number;
}

const place = ({ stage, step, generation }: Progress) => `${stage}/${generation}/${step}`;

export function createProgressBoard(now: () => number = () => performance.now()): ProgressBoard {
  const objects = new Map<string, Entry>();
  return {
    report(key, podUid, progress) {
      const entry = objects.get(key) ?? { workers: new Map(), shown: undefined, shownAt: Number.NEGATIVE_INFINITY };
      objects.set(key, entry);
      const before = entry.workers.get(podUid);
      // What it says itself counts from before we knew it, after a restart of ours.
      const standing = now() - (progress.standingSeconds ?? 0) * 1000;
      const since = before && place(before.latest) === place(progress) ? Math.min(before.since, standing) : now();
      entry.workers.set(podUid, {
        latest: progress,
        at: now(),
        first: before?.first ?? now(),
        since: before ? since : standing,
      });
      return Math.max(0, entry.shownAt + INTERVAL - now());
    },
    shown(key, podUids) {
      const entry = objects.get(key);
      if (!entry) return undefined;
      if (now() - entry.shownAt < INTERVAL) return entry.shown;
      let furthest: Progress | undefined;
      for (const uid of podUids) {
        const progress = entry.workers.get(uid)?.latest;
        if (progress && (!furthest || reached(progress) > reached(furthest))) furthest = progress;
      }
      if (furthest && furthest !== entry.shown) {
        entry.shown = furthest;
        entry.shownAt = now();
      }
      return entry.shown;
    },
    reports(key) {
      const workers = [...(objects.get(key)?.workers ?? [])];
      return new Map(
        workers.map(([uid, { latest, at, first, since }]) => [
          uid,
          {
            progress: latest,
            ageSeconds: (now() - at) / 1000,
            knownSeconds: (now() - first) / 1000,
            standingSeconds: (now() - since) / 1000,
          },
        ]),
      );
    },
    keep(key, podUids) {
      const entry = objects.get(key);
      if (!entry) return;
      for (const uid of entry.workers.keys()) if (!podUids.includes(uid)) entry.workers.delete(uid);
      if (entry.workers.size === 0) objects.delete(key);
    },
  };
}

/** Steps where there are any, else percent, which is then of the same stage. */
const reached = ({ step, percent }: Progress) => (step === undefined ? percent / 101 : step + 1);
