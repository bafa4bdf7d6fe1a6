/** What the pods of a run are, and what becomes of the run for it: workers lost, a start or a run that takes too long. Pure. */
import type { V1Job, V1Pod } from '@kubernetes/client-node';
import type { RunStatus } from '../api/status.ts';
import type { Policy } from '../api/trainingjob.ts';
import type { JobWorkers } from '../manifests/job.ts';
import { INDEX_ANNOTATION, LOST_ANNOTATION } from '../manifests/labels.ts';

/** What a spec says of its workers. */
export interface Workers {
  replicas: number;
  policy: Policy;
}

/** A run of one pod, of a kind that has no policy in its spec. */
const SINGLE: JobWorkers = { replicas: 1, lostBefore: 0, backoffLimit: 10, ttlSeconds: 86_400 };

/** How the Job of the next attempt is made. */
export function jobWorkers(workers: Workers | undefined, lostBefore: number): JobWorkers {
  if (!workers) return SINGLE;
  const { replicas, policy } = workers;
  return {
    replicas,
    lostBefore,
    // Above what the operator lets pass, also when all are lost in one moment: the operator counts, not the Job controller.
    backoffLimit: policy.maxWorkerLosses + replicas,
    ttlSeconds: policy.childrenTTLSecondsAfterFinished,
  };
}

export const isDeleting = (object: V1Job | V1Pod) => object.metadata?.deletionTimestamp !== undefined;

/** Number of a Job's attempt, the last part of its name. */
export function attemptOf(job: V1Job): number {
  return Number(/-(\d+)$/.exec(job.metadata?.name ?? '')?.[1] ?? 1);
}

/** Whether all containers of a pod have ended for good. */
export const hasEnded = (pod: V1Pod) => pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';

/** Rank of a pod: its index in the Job. */
export function rankOf(pod: V1Pod): number | undefined {
  const index = pod.metadata?.annotations?.[INDEX_ANNOTATION];
  return index === undefined ? undefined : Number(index);
}

export function podsOf(job: V1Job | undefined, pods: readonly V1Pod[]): V1Pod[] {
  const uid = job?.metadata?.uid;
  return uid === undefined ? [] : pods.filter((pod) => pod.metadata?.ownerReferences?.some((o) => o.uid === uid));
}

/** The pods that are there for a Job's work, one a rank, by rank. */
export function working(pods: readonly V1Pod[]): V1Pod[] {
  return pods
    .filter((pod) => pod.status?.phase === 'Running' && !isDeleting(pod))
    .sort((a, b) => (rankOf(a) ?? 0) - (rankOf(b) ?? 0));
}

/** How many there are; `lost` never falls, although a Job may be seen late. */
export function countWorkers(
  job: V1Job,
  pods: readonly V1Pod[],
  lostBefore: number,
): NonNullable<RunStatus['workers']> {
  const earlier = Number(job.metadata?.annotations?.[LOST_ANNOTATION] ?? 0);
  return {
    desired: job.spec?.completions ?? 1,
    ready: working(pods).length,
    lost: Math.max(lostBefore, earlier + (job.status?.failed ?? 0)),
  };
}

/** Whether each index has a pod that runs, or is done. */
export function allRun(job: V1Job, pods: readonly V1Pod[]): boolean {
  const done = pods.filter((pod) => pod.status?.phase === 'Succeeded').length;
  return working(pods).length + Math.max(done, job.status?.succeeded ?? 0) >= (job.spec?.completions ?? 1);
}

const milliseconds = (time: string | Date | undefined) => (time === undefined ? undefined : new Date(time).getTime());

/** What has to be done about a run whose Job is neither done nor failed. */
export type Verdict =
  | { fail: { reason: string; message: string } }
  /** The next attempt goes on in a new Job. */
  | { recreate: string }
  /** Nothing yet; in so many seconds time alone may change that. */
  | { lookAgainSeconds: number | undefined };

/**
 * @param workers counted now
 * @param startTime when the run started or was last resumed
 * @param obstacle what keeps a worker from running, or ended the last one, if that is known
 */
export function judgeWorkers(
  policy: Policy,
  job: V1Job,
  pods: readonly V1Pod[],
  workers: NonNullable<RunStatus['workers']>,
  before: RunStatus,
  startTime: string | undefined,
  obstacle: string | undefined,
  now: Date,
): Verdict {
  const { maxWorkerLosses, recreateAfter, startTimeoutSeconds, activeDeadlineSeconds } = policy;
  if (workers.lost > maxWorkerLosses) {
    return {
      fail: {
        reason: 'TooManyWorkersLost',
        message: `${workers.lost} workers were lost, and spec.policy.maxWorkerLosses is ${maxWorkerLosses}.${obstacle ? ` The last: ${obstacle}` : ''}`,
      },
    };
  }
  // Held back by its queue: no time counts.
  if (job.spec?.suspend) return { lookAgainSeconds: undefined };
  const left: number[] = [];
  const started = milliseconds(startTime);
  if (activeDeadlineSeconds !== undefined && started !== undefined) {
    const rest = started / 1000 + activeDeadlineSeconds - now.getTime() / 1000;
    if (rest <= 0) {
      return {
        fail: {
          reason: 'DeadlineExceeded',
          message: `The run was not done within spec.policy.activeDeadlineSeconds, ${activeDeadlineSeconds} s.`,
        },
      };
    }
    left.push(rest);
  }
  const failed = job.status?.failed ?? 0;
  if (failed >= recreateAfter) {
    return {
      recreate: `Job ${job.metadata?.name} lost ${failed} workers; the run goes on from its last checkpoint in a new one.`,
    };
  }
  if (!allRun(job, pods)) {
    const made = milliseconds(job.status?.startTime ?? job.metadata?.creationTimestamp) ?? now.getTime();
    const running = before.conditions?.find((condition) => condition.type === 'Running');
    const stopped = running?.status === 'False' ? milliseconds(running.lastTransitionTime) : now.getTime();
    const rest = (Math.max(made, stopped ?? 0) - now.getTime()) / 1000 + startTimeoutSeconds;
    if (rest <= 0) {
      return {
        fail: {
          reason: 'StartTimeout',
          message: `${workers.ready} of ${workers.desired} workers run after spec.policy.startTimeoutSeconds, ${startTimeoutSeconds} s. ${obstacle ?? 'Make room for the others, or ask for fewer in spec.workers.replicas.'}`,
        },
      };
    }
    left.push(rest);
  }
  return { lookAgainSeconds: left.length === 0 ? undefined : Math.max(1, Math.min(...left)) };
}
