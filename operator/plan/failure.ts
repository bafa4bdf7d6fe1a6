/** What a Job and its pods say went wrong, in words that tell a person what to do. Pure. */
import type { V1ContainerState, V1Job, V1Pod } from '@kubernetes/client-node';
import { EXIT, type Result, TerminationMessage } from '../../trainer-image/contract.ts';
import { CONTAINER } from '../manifests/pod.ts';

export interface RunFailure {
  reason: string;
  message: string;
  pod?: string;
  exitCode?: number;
}

function trainerState(pod: V1Pod): V1ContainerState | undefined {
  return pod.status?.containerStatuses?.find((status) => status.name === CONTAINER)?.state;
}

/** The termination message of a pod's trainer, if it has ended and wrote one that parses. */
function terminationMessage(pod: V1Pod): TerminationMessage | undefined {
  const message = trainerState(pod)?.terminated?.message;
  if (!message?.startsWith('{')) return undefined;
  try {
    return TerminationMessage.safeParse(JSON.parse(message)).data;
  } catch {
    return undefined; // cut off, or the program's own words
  }
}

function newestFirst(pods: readonly V1Pod[]): V1Pod[] {
  const time = (pod: V1Pod) => String(pod.metadata?.creationTimestamp ?? '');
  return [...pods].sort((a, b) => time(b).localeCompare(time(a)));
}

/** The result that the Job's pods left behind. Undefined when the pod is gone: the run is done again and finds its result. */
export function resultOf(pods: readonly V1Pod[]): Result | undefined {
  for (const pod of newestFirst(pods)) {
    const result = terminationMessage(pod)?.result;
    if (result) return result;
  }
  return undefined;
}

/** Why a pod's trainer ended badly. */
function podFailure(pod: V1Pod): RunFailure | undefined {
  const terminated = trainerState(pod)?.terminated;
  if (!terminated || terminated.exitCode === EXIT.DONE) return undefined;
  const where = { pod: pod.metadata?.name, exitCode: terminated.exitCode };
  if (terminated.reason === 'OOMKilled') {
    const limit = pod.spec?.containers.find((c) => c.name === CONTAINER)?.resources?.limits?.memory;
    return {
      reason: 'OOMKilled',
      message: `Pod ${where.pod} ran out of memory (limit ${limit ?? 'none'}); raise the memory limit under resources.limits.`,
      ...where,
    };
  }
  const said = terminationMessage(pod)?.failure;
  if (said) return { ...said, ...where };
  const lastLines = terminated.message?.trim() ?? '';
  return {
    reason: terminated.reason ?? 'Error',
    message: `Pod ${where.pod} ended with exit code ${terminated.exitCode}${lastLines ? `: ${lastLines.slice(-800)}` : '.'}`,
    ...where,
  };
}

/** The cause of a Job's failure: its newest failed pod, else what the Job's own condition says. */
export function jobFailure(job: V1Job, pods: readonly V1Pod[]): RunFailure {
  for (const pod of newestFirst(pods)) {
    const failure = podFailure(pod);
    if (failure) return failure;
  }
  const condition = job.status?.conditions?.find((c) => c.type === 'Failed' && c.status === 'True');
  return {
    reason: condition?.reason ?? 'JobFailed',
    message: condition?.message ?? `Job ${job.metadata?.name} failed and its pods are gone.`,
  };
}

/** Why a pod that should run does not, if it says so. */
export function podObstacle(pod: V1Pod): { reason: string; message: string } | undefined {
  const unscheduled = pod.status?.conditions?.find(
    (c) => c.type === 'PodScheduled' && c.status === 'False' && c.reason === 'Unschedulable',
  );
  if (unscheduled) {
    return {
      reason: 'Unschedulable',
      message: `Pod ${pod.metadata?.name} cannot be scheduled: ${unscheduled.message ?? 'no node fits'}`,
    };
  }
  const statuses = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])];
  for (const status of statuses) {
    const wait = status.state?.waiting;
    if (wait?.reason && !['ContainerCreating', 'PodInitializing'].includes(wait.reason)) {
      return {
        reason: wait.reason,
        message: `Pod ${pod.metadata?.name}, container ${status.name}: ${wait.message ?? wait.reason} (image ${status.image})`,
      };
    }
  }
  return undefined;
}
