/** The latest report of each worker's pod, let through to status at most once in ten seconds a pod. Lost with the process, on purpose. */
import type { Progress } from '../../trainer-image/contract.ts';

const INTERVAL = 10_000;

export interface ProgressBoard {
  /** Takes a report; returns in how many ms it may be shown. */
  report(podUid: string, progress: Progress): number;
  /** What may be shown of a pod. Does not change within ten seconds, however often it is asked for. */
  shown(podUid: string): Progress | undefined;
  forget(podUid: string): void;
}

export function createProgressBoard(now: () => number = () => performance.now()): ProgressBoard {
  const pods = new Map<string, { latest: Progress; shown: Progress | undefined; at: number }>();
  return {
    report(podUid, progress) {
      const entry = pods.get(podUid) ?? { latest: progress, shown: undefined, at: Number.NEGATIVE_INFINITY };
      entry.latest = progress;
      pods.set(podUid, entry);
      return Math.max(0, entry.at + INTERVAL - now());
    },
    shown(podUid) {
      const entry = pods.get(podUid);
      if (!entry) return undefined;
      if (now() - entry.at >= INTERVAL && entry.shown !== entry.latest) {
        entry.shown = entry.latest;
        entry.at = now();
      }
      return entry.shown;
    },
    forget: (podUid) => void pods.delete(podUid),
  };
}
