/**
 * What stands in the way of a child, or ended it, in words that tell a person what to do: the object, the field, the value.
 * Pure. Whether it may pass by itself is told by the exit code: of USER_ERROR and NO_ACCELERATOR only the user can make an end.
 */
import { constants } from 'node:os';
import type {
  CoreV1Event,
  V1ContainerState,
  V1ContainerStateTerminated,
  V1ContainerStatus,
  V1Deployment,
  V1Job,
  V1PersistentVolumeClaim,
  V1Pod,
} from '@kubernetes/client-node';
import { EXIT, type Result, TerminationMessage } from '../../trainer-image/contract.ts';
import type { RunStatus } from '../api/status.ts';
import { COMPONENTS, type Component } from '../manifests/labels.ts';
import { CONTAINER } from '../manifests/pod.ts';
import { timestamp } from './conditions.ts';
import { FIELD_PATHS, type FieldPaths } from './fields.ts';
import { refusalOf } from './refusal.ts';
import { claimObstacle, newestEvent } from './store.ts';
import { hasEnded, isDeleting, rankOf } from './workers.ts';

export interface RunFailure {
  reason: string;
  message: string;
  pod?: string;
  rank?: number;
  /** Of a process that ended; absent where none did. */
  exitCode?: number;
}

/** What is seen around a child. */
export interface Surroundings {
  /** Its pods. */
  pods: readonly V1Pod[];
  /** Claims that the pods mount, as far as they exist. */
  claims: readonly V1PersistentVolumeClaim[];
  /** Events about the claims, and about Jobs. */
  events: readonly CoreV1Event[];
}

/** Workers that have run for so long, in ms, have overcome what ended one before, as the kubelet has it of a crash. */
const OVERCOME = 600_000;
/** Characters of `status.lastFailure.message`. */
const MESSAGE_LENGTH = 1024;
/** Characters of a program's last lines. */
const LAST_LINES = 700;

/** Only the user can mend it: the same again would end the same way. */
export function isTerminal({ exitCode }: RunFailure): boolean {
  return exitCode === EXIT.USER_ERROR || exitCode === EXIT.NO_ACCELERATOR;
}

// ------------------------------------------------------------------------------------------------ whose pod it is

/** The kind of object that a child works for, by its labels. */
function componentOf({ metadata }: V1Pod | V1Job | V1Deployment): Component {
  const component = metadata?.labels?.['app.kubernetes.io/component'] ?? '';
  return component in COMPONENTS ? (component as Component) : 'dataset';
}

const fieldsOf = (child: V1Pod | V1Job | V1Deployment): FieldPaths => FIELD_PATHS[componentOf(child)];

/** Which pod it is, as fields of a failure. Only the workers of a TrainingJob have a rank. */
function whichPod(pod: V1Pod): { pod?: string; rank?: number } {
  const rank = componentOf(pod) === 'trainingjob' ? rankOf(pod) : undefined;
  return { pod: pod.metadata?.name, ...(rank === undefined ? {} : { rank }) };
}

function called(pod: V1Pod): string {
  const { pod: name, rank } = whichPod(pod);
  return rank === undefined ? `Pod ${name}` : `Pod ${name} (rank ${rank})`;
}

function newestFirst(pods: readonly V1Pod[]): V1Pod[] {
  return [...pods].sort(
    (a, b) => milliseconds(b.metadata?.creationTimestamp) - milliseconds(a.metadata?.creationTimestamp),
  );
}

const milliseconds = (time: string | Date | undefined) => (time === undefined ? 0 : new Date(time).getTime());

// ------------------------------------------------------------------------------------------------ how a pod ended

const trainerStatus = (pod: V1Pod): V1ContainerStatus | undefined =>
  pod.status?.containerStatuses?.find((status) => status.name === CONTAINER);

/** What a trainer that has ended left as its last word, if it is whole. */
function terminationMessage(state: V1ContainerState | undefined): TerminationMessage | undefined {
  const message = state?.terminated?.message;
  if (!message?.startsWith('{')) return undefined;
  try {
    return TerminationMessage.safeParse(JSON.parse(message)).data;
  } catch {
    return undefined; // cut off, or the program's own words
  }
}

/** The result that the Job's pods left behind. Undefined when the pod is gone: the run is done again and finds its result. */
export function resultOf(pods: readonly V1Pod[]): Result | undefined {
  for (const pod of newestFirst(pods)) {
    const result = terminationMessage(trainerStatus(pod)?.state)?.result;
    if (result) return result;
  }
  return undefined;
}

/** The end of the container, also of one that was started again and is not ready since. */
function endOf(pod: V1Pod): V1ContainerState | undefined {
  const status = trainerStatus(pod);
  if (status?.state?.terminated) return status.state;
  return status && !status.ready && status.lastState?.terminated ? status.lastState : undefined;
}

/**
 * Why a pod's process ended badly. One that was told to stop, or lost its node or its place to another pod, did not.
 *
 * @param claims that it mounts
 */
export function podFailure(pod: V1Pod, claims: readonly V1PersistentVolumeClaim[] = []): RunFailure | undefined {
  const { reason, message } = pod.status ?? {};
  if (reason === 'Evicted') {
    return {
      reason,
      message: `${called(pod)} was evicted by its node: ${message ?? 'no reason given'}`,
      ...whichPod(pod),
    };
  }
  if (pod.status?.conditions?.some((c) => c.type === 'DisruptionTarget' && c.status === 'True')) return undefined;
  const state = endOf(pod);
  const terminated = state?.terminated;
  if (!terminated) {
    if (pod.status?.phase !== 'Failed') return undefined;
    return {
      reason: reason ?? 'Error',
      message: `${called(pod)} failed: ${message ?? 'no reason given'}`,
      ...whichPod(pod),
    };
  }
  const { exitCode } = terminated;
  if (exitCode === EXIT.DONE || exitCode === EXIT.INTERRUPTED) return undefined;
  return { ...wordsOf(pod, terminated, terminationMessage(state)?.failure, claims), ...whichPod(pod), exitCode };
}

function wordsOf(
  pod: V1Pod,
  terminated: V1ContainerStateTerminated,
  said: TerminationMessage['failure'],
  claims: readonly V1PersistentVolumeClaim[],
): RunFailure {
  const { resources, image } = fieldsOf(pod);
  if (terminated.reason === 'OOMKilled') {
    const limit = pod.spec?.containers.find((c) => c.name === CONTAINER)?.resources?.limits?.memory;
    return {
      reason: 'OOMKilled',
      message: `${called(pod)} ran out of memory: its limit is ${limit ?? 'what the node has'}. Raise ${resources}.limits.memory.`,
    };
  }
  if (said?.reason === 'StoreFull') {
    return { reason: 'StoreFull', message: `${called(pod)}: ${said.message}. ${largerStore(pod, claims)}` };
  }
  if (said) return said;
  const lastLines = terminated.message?.trim() ?? '';
  if (terminated.exitCode === EXIT.NO_ACCELERATOR) {
    const more = lastLines ? ` Its last lines: ${lastLines.slice(-LAST_LINES)}` : '';
    return {
      reason: 'NoAccelerator',
      message: `${called(pod)} was to use an accelerator and found none, and never runs on the CPU instead. Look at the driver of node ${pod.spec?.nodeName ?? ''}, and whether the image (${image}) has the engine for it.${more}`,
    };
  }
  const how = `exit code ${terminated.exitCode}${signalName(terminated.exitCode)}`;
  const namespace = pod.metadata?.namespace;
  return {
    reason: terminated.reason ?? 'Error',
    message: lastLines
      ? `${called(pod)} ended with ${how}. Its last lines: ${lastLines.slice(-LAST_LINES)}`
      : `${called(pod)} ended with ${how} and no word; see kubectl logs -n ${namespace} ${pod.metadata?.name}.`,
  };
}

/** A process that a signal ended has exit code 128 + its number. */
function signalName(exitCode: number): string {
  const name = Object.entries(constants.signals).find(([, number]) => number === exitCode - 128)?.[0];
  return name ? ` (${name})` : '';
}

function largerStore(pod: V1Pod, claims: readonly V1PersistentVolumeClaim[]): string {
  const name = pod.spec?.volumes?.find((volume) => volume.name === 'store')?.persistentVolumeClaim?.claimName;
  const claim = claims.find((candidate) => candidate.metadata?.name === name);
  const size = claim?.status?.capacity?.storage ?? claim?.spec?.resources?.requests?.storage;
  return `The store is PersistentVolumeClaim ${name ?? ''}${size ? `, of ${size}` : ''}: raise its spec.resources.requests.storage, if its StorageClass lets volumes grow, or delete what is not needed in it.`;
}

/**
 * The cause of a Job's failure: of its pods that ended badly one whose exit code says that no retry helps, else the latest;
 * without any, what the Job's own condition says. Pods that are being deleted were stopped for it, and come last.
 */
export function jobFailure(
  job: V1Job,
  pods: readonly V1Pod[],
  claims: readonly V1PersistentVolumeClaim[] = [],
): RunFailure {
  const failures = newestFirst(pods).flatMap((pod) => {
    const failure = podFailure(pod, claims);
    return failure ? [{ failure, rank: isTerminal(failure) ? 0 : isDeleting(pod) ? 2 : 1 }] : [];
  });
  failures.sort((a, b) => a.rank - b.rank);
  if (failures[0]) return failures[0].failure;
  const condition = job.status?.conditions?.find((c) => c.type === 'Failed' && c.status === 'True');
  return {
    reason: condition?.reason ?? 'JobFailed',
    message: condition?.message ?? `Job ${job.metadata?.name} failed and its pods are gone.`,
  };
}

// ------------------------------------------------------------------------------------------------ what a pod waits for

/** Why a pod that should run does not, if it says so. */
export function podObstacle(pod: V1Pod): RunFailure | undefined {
  const unscheduled = pod.status?.conditions?.find(
    (c) => c.type === 'PodScheduled' && c.status === 'False' && c.reason === 'Unschedulable',
  );
  if (unscheduled) {
    const said = (unscheduled.message ?? 'no node fits').replace(
      /\.? (no new claims to deallocate|preemption:).*$/s,
      '',
    );
    return {
      reason: 'Unschedulable',
      message: [`${called(pod)} cannot be scheduled: ${said}.`, ...toSchedule(said, pod)].join(' '),
      ...whichPod(pod),
    };
  }
  for (const status of [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])]) {
    const words = waitingWords(pod, status);
    if (words) return { ...words, ...whichPod(pod) };
  }
  return undefined;
}

/** What to do about the scheduler's words. */
function toSchedule(said: string, pod: V1Pod): string[] {
  const { resources, pod: overrides } = fieldsOf(pod);
  const advice: string[] = [];
  const requests = pod.spec?.containers.find((c) => c.name === CONTAINER)?.resources?.requests ?? {};
  for (const [, name] of new Set([...said.matchAll(/Insufficient ([\w./-]*\w)/g)])) {
    const asks = requests[name] ? `It asks for ${name} ${requests[name]}: lower` : 'Lower';
    advice.push(`${asks} ${resources}.requests.${name}, or add a node that has so much.`);
  }
  const missing = /persistentvolumeclaim "([^"]+)" not found/.exec(said)?.[1];
  if (missing) {
    const volume = pod.spec?.volumes?.find((v) => v.persistentVolumeClaim?.claimName === missing)?.name;
    const field = volume === 'source' ? 'spec.source.pvc.claimName' : 'spec.store.pvc.claimName';
    advice.push(`Create PersistentVolumeClaim ${missing}, or name another in ${field}.`);
  }
  if (/unbound immediate PersistentVolumeClaims/.test(said)) advice.push('A claim of the pod has no volume yet.');
  if (/node affinity\/selector/.test(said) && pod.spec?.nodeSelector) {
    const wanted = Object.entries(pod.spec.nodeSelector).map(([key, value]) => `${key}=${value}`);
    advice.push(`No node has the labels ${wanted.join(', ')}: correct ${overrides}.nodeSelector, or label a node.`);
  }
  if (/untolerated taint/.test(said))
    advice.push(`Name the taint in ${overrides}.tolerations, or add a node without it.`);
  if (/pod affinity rules/.test(said)) {
    advice.push(
      'The store is ReadWriteOnce, so its pods share one node: make room there, or use a ReadWriteMany claim.',
    );
  }
  if (/no nodes available/.test(said)) advice.push('Add a node.');
  return advice;
}

/** Waiting for these is no obstacle. */
const UNDER_WAY = ['ContainerCreating', 'PodInitializing', 'CrashLoopBackOff'];
/** States between which a kubelet goes to and fro while an image does not come. */
const PULLING = ['ErrImagePull', 'ImagePullBackOff', 'RegistryUnavailable'];

function waitingWords(pod: V1Pod, { name, image, state }: V1ContainerStatus): RunFailure | undefined {
  const { reason, message = '' } = state?.waiting ?? {};
  if (!reason || UNDER_WAY.includes(reason)) return undefined;
  const fields = fieldsOf(pod);
  if (PULLING.includes(reason)) {
    // The back-off says no more than the error before it.
    const why = message.replace(/^Back-off pulling image "[^"]*":? ?/, '').replace(/^ErrImagePull: /, '');
    return {
      reason: 'ImagePullBackOff',
      message: `${called(pod)} cannot pull image ${image}${why ? `: ${why}` : ''}. Correct ${fields.image}, or give the registry's Secret in ${fields.pod}.imagePullSecrets.`,
    };
  }
  if (reason === 'InvalidImageName') {
    return {
      reason: 'InvalidImageName',
      message: `Image ${image} of ${called(pod)} has no valid name: correct ${fields.image}.`,
    };
  }
  const toDo = /secret|configmap/i.test(message) ? ` Create it, or correct ${fields.pod}.env.` : '';
  return { reason, message: `${called(pod)}, container ${name}, cannot start: ${message || reason}.${toDo}` };
}

// ------------------------------------------------------------------------------------------------ what a child waits for

/**
 * What keeps a Job that is neither done nor failed from having all its pods run: a claim without a volume, the API server's
 * refusal of its pods, what a pod waits for, or how the last one ended if its successor does not run yet. Of several pods
 * one is shown: one that no retry helps, else that of the lowest index.
 */
export function jobObstacle(job: V1Job, surroundings: Surroundings, now: Date): RunFailure | undefined {
  const idle = idleIndexes(job, surroundings.pods);
  if (idle.length === 0) return undefined;
  const found = idle.flatMap((pods) => indexObstacle(pods, surroundings.claims) ?? []);
  return (
    found.find(isTerminal) ??
    claimsObstacle(surroundings, now) ??
    refusedPods(job, idle, surroundings.events) ??
    found[0]
  );
}

/** What keeps a revision from having all its replicas ready. */
export function revisionObstacle(
  deployment: V1Deployment,
  surroundings: Surroundings,
  now: Date,
): RunFailure | undefined {
  const pods = surroundings.pods.filter((pod) => !isDeleting(pod) && !trainerStatus(pod)?.ready);
  const found = pods.flatMap((pod) => podObstacle(pod) ?? podFailure(pod, surroundings.claims) ?? []);
  const refused = deployment.status?.conditions?.find((c) => c.type === 'ReplicaFailure' && c.status === 'True');
  return (
    found.find(isTerminal) ??
    (pods.length > 0 ? claimsObstacle(surroundings, now) : undefined) ??
    (refused && refusalOf(refused.message ?? '', fieldsOf(deployment))) ??
    found[0]
  );
}

/** The pods of each index of which none runs or is done, newest first. */
function idleIndexes(job: V1Job, pods: readonly V1Pod[]): V1Pod[][] {
  const indexes: V1Pod[][] = Array.from({ length: job.spec?.completions ?? 1 }, () => []);
  for (const pod of newestFirst(pods)) indexes[rankOf(pod) ?? 0]?.push(pod);
  const works = (pod: V1Pod) =>
    pod.status?.phase === 'Succeeded' || (pod.status?.phase === 'Running' && !isDeleting(pod));
  return indexes.filter((ofIndex) => !ofIndex.some(works));
}

function indexObstacle(pods: readonly V1Pod[], claims: readonly V1PersistentVolumeClaim[]): RunFailure | undefined {
  const next = pods.find((pod) => !hasEnded(pod) && !isDeleting(pod));
  const ended = pods.find(hasEnded);
  return (next && podObstacle(next)) ?? (ended && podFailure(ended, claims));
}

function claimsObstacle({ claims, events }: Surroundings, now: Date): RunFailure | undefined {
  for (const claim of claims) {
    const found = claimObstacle(claim, events, now);
    if (found) return found;
  }
  return undefined;
}

/** The refusal that is younger than the last pod of an index which has none now. */
function refusedPods(job: V1Job, idle: readonly V1Pod[][], events: readonly CoreV1Event[]): RunFailure | undefined {
  const refusal = newestEvent(
    events.filter((event) => event.reason === 'FailedCreate' && event.involvedObject.uid === job.metadata?.uid),
  );
  if (!refusal) return undefined;
  const still = idle.some(
    (pods) =>
      pods.every((pod) => hasEnded(pod) || isDeleting(pod)) &&
      milliseconds(pods[0]?.metadata?.creationTimestamp) <= refusal.time,
  );
  return still ? refusalOf(refusal.event.message ?? '', fieldsOf(job)) : undefined;
}

// ------------------------------------------------------------------------------------------------ what is remembered of it

type LastFailure = NonNullable<RunStatus['lastFailure']>;

/** The failure that stands now, in the words it had: an image that does not come says less in its back-off than before. */
export function asBefore(before: LastFailure | undefined, found: RunFailure): RunFailure {
  const same = found.reason === 'ImagePullBackOff' && before?.reason === found.reason && before.pod === found.pod;
  return same ? { ...found, message: before.message } : found;
}

/** `status.lastFailure` for a failure that stands; its time is when it was first seen. */
export function remember(before: LastFailure | undefined, found: RunFailure, now: Date): LastFailure {
  const { reason, message, pod, rank, exitCode } = found;
  const same = before?.reason === reason && before.pod === pod;
  return {
    reason,
    message: message.slice(0, MESSAGE_LENGTH),
    ...(pod === undefined ? {} : { pod }),
    ...(rank === undefined ? {} : { rank }),
    ...(exitCode === undefined ? {} : { exitCode }),
    time: (same ? before.time : undefined) ?? timestamp(now),
  };
}

/**
 * What is left of a Job's last failure when nothing stands in its way: a passing obstacle is over when all pods run, the bad
 * end of a process when they have run for a while, since it may end the same way again.
 */
export function leftOf(
  before: LastFailure | undefined,
  job: V1Job,
  pods: readonly V1Pod[],
  now: Date,
): LastFailure | undefined {
  if (!before || idleIndexes(job, pods).length > 0) return before;
  if (before.exitCode === undefined) return undefined;
  const starts = pods
    .filter((pod) => pod.status?.phase === 'Running' && !isDeleting(pod))
    .map((pod) => milliseconds(trainerStatus(pod)?.state?.running?.startedAt ?? pod.status?.startTime));
  return now.getTime() - Math.max(0, ...starts) >= OVERCOME ? undefined : before;
}

/** Whether a person is told of it by an Event: at its first sight, and of each process that ended. */
export function isNews(before: LastFailure | undefined, found: RunFailure): boolean {
  return before?.reason !== found.reason || (found.exitCode !== undefined && before.pod !== found.pod);
}
