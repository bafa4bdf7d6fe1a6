/** What the supervisor knows of its engine, and the reports of it that go on while the engine stands still. */
import type { Progress } from '../contract.ts';
import type { Reporter } from '../progress.ts';
import type { Activity } from './engine-process.ts';
import { takeStack } from './stack.ts';

export interface Status {
  state: 'starting' | 'training' | 'stopping';
  pid: number | undefined;
  restarts: number;
  savedStep: number | undefined;
  progress: Progress | undefined;
  activity: Activity | undefined;
  /** When the engine last said something, and when its progress last changed, in milliseconds since the epoch. */
  heardAt: number;
  movedAt: number;
}

/** Longest time between two reports. */
const REPORT_SECONDS = 8;
const TICK_MILLISECONDS = 1000;

export interface Heartbeat {
  /** The engine said how far it is. */
  moved(progress: Progress): void;
  stop(): void;
}

/**
 * Reports for an engine: its progress as it comes, and the last one again when nothing comes, with for how long; after
 * `stackAfterSeconds` with its stack too.
 *
 * @param stackAt where the engine answers for its stack, see stack.ts
 */
export function startHeartbeat(
  status: Status,
  { reporter, stackAfterSeconds, stackAt }: { reporter: Reporter; stackAfterSeconds: number; stackAt: string },
): Heartbeat {
  let reportedAt = Date.now();
  let stack: string | undefined;
  /** The stack of this standstill was asked for. */
  let asked = false;

  const report = (progress: Progress, standing: Pick<Progress, 'standingSeconds' | 'stack'> = {}) => {
    reportedAt = Date.now();
    const message: Progress = { ...progress, ...status.activity, ...standing };
    reporter.report(message);
  };

  const repeat = () => {
    const standingSeconds = Math.max(0, (Date.now() - status.movedAt) / 1000);
    const last = status.progress ?? { stage: 'starting', percent: 0 };
    report(last, { standingSeconds, ...(stack !== undefined && { stack }) });
  };

  const tick = () => {
    const standing = (Date.now() - status.movedAt) / 1000;
    // One that waits for a ring waits for others.
    const waits = status.activity?.activity === 'WaitingForRing';
    if (!asked && standing >= stackAfterSeconds && status.pid && !waits) {
      asked = true;
      const since = status.movedAt;
      takeStack(status.pid, stackAt).then((taken) => {
        if (since !== status.movedAt) return;
        stack = taken;
        repeat();
      });
    }
    if (Date.now() - reportedAt >= REPORT_SECONDS * 1000) repeat();
  };
  const timer = setInterval(tick, TICK_MILLISECONDS);

  return {
    moved(progress) {
      const last = status.progress;
      if (last?.stage !== progress.stage || last.step !== progress.step || last.percent !== progress.percent) {
        status.movedAt = Date.now();
        stack = undefined;
        asked = false;
      }
      status.progress = progress;
      report(progress);
    },
    stop: () => clearInterval(timer),
  };
}
