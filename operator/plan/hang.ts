/** Does a run stand still, and who is it that the others wait for? Pure. */
import type { V1Pod } from '@kubernetes/client-node';
import type { Progress } from '../../trainer-image/contract.ts';
import { rankOf } from './workers.ts';

/** The latest that a worker said. */
export interface WorkerReport {
  progress: Progress;
  /** Seconds since it came. */
  ageSeconds: number;
  /** Seconds since the first that came of this worker. */
  knownSeconds: number;
  /** Seconds since the worker's step, stage or ring last changed. */
  standingSeconds: number;
}

export interface Hang {
  /** The worker that the others wait for; undefined if none can be told from the others. */
  slow: V1Pod | undefined;
  message: string;
}

/** A worker that said nothing for so long does not report: reports come every few seconds. */
const SILENT_SECONDS = 60;
/** Lines of a stack in a message. */
const STACK_LINES = 4;
const STACK_CHARACTERS = 500;

/**
 * Nothing is concluded from silence alone: with an intake that cannot be reached, training goes on unseen.
 *
 * @param pods the workers, all of which run
 * @param runningSeconds for so long all of them have run
 */
export function findHang(
  pods: readonly V1Pod[],
  reports: ReadonlyMap<string, WorkerReport>,
  timeoutSeconds: number,
  runningSeconds: number,
): Hang | undefined {
  const workers = pods.map((pod) => {
    const report = reports.get(pod.metadata?.uid ?? '');
    return { pod, report: report && report.ageSeconds <= SILENT_SECONDS ? report : undefined };
  });
  const steps = workers.flatMap(({ report }) => report?.progress.step ?? []);
  if (steps.length === 0) return undefined;
  const furthest = Math.max(...steps);
  const standing = workers.flatMap(({ report }) =>
    report?.progress.step === furthest ? [report.standingSeconds] : [],
  );
  if (Math.min(...standing, runningSeconds) < timeoutSeconds) return undefined;

  const activity = ({ report }: (typeof workers)[number]) => report?.progress.activity;
  const waits = (worker: (typeof workers)[number]) =>
    activity(worker) === 'Exchanging' || activity(worker) === 'WaitingForRing';
  const stepOf = ({ report }: (typeof workers)[number]) => report?.progress.step ?? Number.POSITIVE_INFINITY;
  // Of several, the one that is seen at work, and least far.
  const slow = workers.filter((worker) => !waits(worker)).sort((a, b) => stepOf(a) - stepOf(b))[0];
  // Whoever has begun to listen only now knows nothing of who is silent.
  const listened = Math.max(...[...reports.values()].map(({ knownSeconds }) => knownSeconds));
  if (slow && !slow.report && listened < SILENT_SECONDS) return undefined;
  const still = `Steps stand still at ${furthest} for more than ${timeoutSeconds} s`;
  if (slow) {
    const who = `rank ${rankOf(slow.pod) ?? 0} (pod ${slow.pod.metadata?.name})`;
    const does = slow.report ? `is ${activity(slow) ?? 'at work'}` : 'does not report';
    const others = workers.length > 1 ? ' while others wait' : '';
    return { slow: slow.pod, message: `${still}: ${who} ${does}${others}.${stackOf(slow.report?.progress.stack)}` };
  }
  if (workers.every((worker) => activity(worker) === 'WaitingForRing')) {
    return { slow: undefined, message: `${still}: all workers wait for a ring.` };
  }
  // All exchange and none gets further: any restart makes a new ring. Rank 0 writes the checkpoints, so it is the last to take.
  const last = workers.toSorted((a, b) => stepOf(a) - stepOf(b) || (rankOf(b.pod) ?? 0) - (rankOf(a.pod) ?? 0))[0];
  return {
    slow: last.pod,
    message: `${still}: all workers wait for each other; rank ${rankOf(last.pod) ?? 0} (pod ${last.pod.metadata?.name}) is least far.`,
  };
}

function stackOf(stack: string | undefined): string {
  if (!stack) return '';
  const lines = stack.split('\n').map((line) => line.trim());
  const first = lines.filter((line) => line !== '').slice(0, STACK_LINES);
  return ` Its stack: ${first.join(' | ').slice(0, STACK_CHARACTERS)}`;
}
