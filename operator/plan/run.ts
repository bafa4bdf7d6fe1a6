/**
 * The life of a run, shared by Dataset, TrainingJob and ModelExport: which run the spec asks for, which Job carries it out,
 * and what the status says. Pure: observed state in, plan out.
 *
 * A run is known by its input digest. A spec whose run is done is at rest; otherwise its Job is created, watched, and its
 * result taken from the pod's termination message. If the Job or its pod is lost, the Job is made again: the trainer finds
 * finished work in the store by the run's folder and answers at once, so nothing is done twice.
 */
import type { CoreV1Event, V1Job, V1OwnerReference, V1PersistentVolumeClaim, V1Pod } from '@kubernetes/client-node';
import { EXIT, type Progress, type Result, type Task } from '../../trainer-image/contract.ts';
import type { FoveaObject } from '../api/object.ts';
import type { PodOverrides } from '../api/pod.ts';
import type { Resources } from '../api/resources.ts';
import type { HistoryEntry, LineageEntry, RunStatus } from '../api/status.ts';
import { runJob } from '../manifests/job.ts';
import {
  childName,
  DIGEST_ANNOTATION,
  GENERATION_ANNOTATION,
  QUEUE_LABEL,
  REQUESTED_AT_ANNOTATION,
  RESOLVED_ANNOTATION,
} from '../manifests/labels.ts';
import { type Intake, trainerPodTemplate } from '../manifests/pod.ts';
import { conditions, progressing, ready, stalled, suspended, timestamp, type Wanted, waiting } from './conditions.ts';
import {
  asBefore,
  isNews,
  isTerminal,
  jobFailure,
  jobObstacle,
  leftOf,
  type RunFailure,
  remember,
  resultOf,
} from './failure.ts';
import { findHang, type WorkerReport } from './hang.ts';
import { formRing } from './ring.ts';
import { observeStore, PROVISIONING_SECONDS } from './store.ts';
import { failedBefore, type Input, isDone, type Rerun, type RunComponent, type RunObject, target } from './target.ts';
import {
  allRun,
  attemptOf,
  countWorkers,
  hasEnded,
  isDeleting,
  jobWorkers,
  judgeWorkers,
  podsOf,
  rankOf,
  type Workers,
  working,
} from './workers.ts';

interface KindConditions {
  /** Reason of Ready=True: Packed, Trained, Verified. */
  doneReason: string;
  /** Conditions that are this kind's own. */
  extra: readonly ('Complete' | 'Running' | 'Failed' | 'Verified')[];
}

/** What differs between the kinds. */
export interface RunKind<Object extends RunObject, Resolved> extends KindConditions {
  component: RunComponent;
  /** The kind's default of `spec.rerun`. */
  rerun: Rerun;
  /** Messages "<field path>: <what is wrong>" for what the API server could not refuse. */
  check: (object: Object) => string[];
  /** Defaults and image, frozen when the run starts. */
  resolve: (object: Object, options: OperatorOptions) => Resolved;
  task: (object: Object, resolved: Resolved, run: string, inputs: LineageEntry[]) => Task;
  image: (resolved: Resolved) => string;
  pod: (object: Object) => { resources: Required<Resources>; pod: PodOverrides | undefined };
  /** How many pods work together, and what is done when they are lost. Absent: one pod, and no policy. */
  workers?: (object: Object) => Workers;
  /** A claim with the user's own files that the pod reads. */
  source?: (object: Object) => { claimName: string; path: string } | undefined;
  /** The kind's own status fields from a result; `failed` for a result that came with a failure. */
  summarize: (result: Result, failed: boolean) => Record<string, unknown>;
  /** The kind's own `status.progress`. */
  progress: (progress: Progress) => Record<string, unknown>;
  /** One line for Ready=True. */
  describe: (status: RunStatus) => string;
}

/** The operator's own settings that runs are resolved with. */
export interface OperatorOptions {
  trainerImage: string;
  intake: Intake | undefined;
  gatewayUrl: string;
}

export interface Observed<Object> {
  object: Object;
  /** Objects consumed, in the order of the kind's references. */
  inputs: Input[];
  /** Jobs owned by the object, by uid; pods of these Jobs. */
  jobs: V1Job[];
  pods: V1Pod[];
  /** The store's claim; undefined if it does not exist. */
  claim: V1PersistentVolumeClaim | undefined;
  /** All claims that its pods mount, as far as they exist. */
  claims: V1PersistentVolumeClaim[];
  /** About the claims, and about the Jobs. */
  events: CoreV1Event[];
  /** What may be shown of the present run's workers. */
  progress: Progress | undefined;
  /** The latest that each worker said, by uid of its pod. */
  reports: ReadonlyMap<string, WorkerReport>;
  /** Uids of the pods that ask for a ring. */
  joined: ReadonlySet<string>;
  options: OperatorOptions;
  now: Date;
}

export interface PlannedEvent {
  type: 'Normal' | 'Warning';
  reason: string;
  message: string;
}

export interface Plan {
  /** Jobs to create, once. */
  create: V1Job[];
  /** Jobs to delete, with their pods. */
  remove: V1Job[];
  /** Pods to delete, so that they are replaced. */
  restart: V1Pod[];
  /** In so many seconds time alone may change the plan. */
  lookAgainSeconds: number | undefined;
  status: RunStatus;
  events: PlannedEvent[];
}

const MAX_HISTORY = 10;

export function ownerReference(object: FoveaObject<unknown, unknown>): V1OwnerReference {
  return {
    apiVersion: object.apiVersion,
    kind: object.kind,
    name: object.metadata.name,
    uid: object.metadata.uid,
    controller: true,
    blockOwnerDeletion: true,
  };
}

const jobCondition = (job: V1Job, type: string) =>
  job.status?.conditions?.some((c) => c.type === type && c.status === 'True') ?? false;
const digestAnnotation = (job: V1Job) => job.metadata?.annotations?.[DIGEST_ANNOTATION];

/** What the Job froze when the run started, else what the status says of this run, else resolved now. */
function frozen<Object extends RunObject, Resolved>(
  kind: RunKind<Object, Resolved>,
  observed: Observed<Object>,
  digest: string,
  job: V1Job | undefined,
): Resolved {
  const annotation = job?.metadata?.annotations?.[RESOLVED_ANNOTATION];
  if (annotation) return JSON.parse(annotation) as Resolved;
  const { status } = observed.object;
  if (status?.inputDigest === digest && status.resolved) return status.resolved as Resolved;
  return kind.resolve(observed.object, observed.options);
}

export function planRun<Object extends RunObject, Resolved>(
  kind: RunKind<Object, Resolved>,
  observed: Observed<Object>,
): Plan {
  const { object, jobs, pods, options, now } = observed;
  const before: RunStatus = object.status ?? {};
  const generation = object.metadata.generation;
  const plan: Plan = {
    create: [],
    remove: [],
    restart: [],
    lookAgainSeconds: undefined,
    status: { ...before, observedGeneration: generation },
    events: [],
  };
  const settle = (wanted: Wanted[], extra: Partial<RunStatus> = {}): Plan => {
    Object.assign(plan.status, extra);
    plan.status.conditions = conditions(before.conditions, wanted, generation, now);
    return plan;
  };

  const problems = kind.check(object);
  if (problems.length > 0) return settle(stalled('InvalidSpec', problems.join('; ')));

  const wantedRun = target(kind.component, object, object.spec.rerun ?? kind.rerun, observed.inputs);
  if ('stalled' in wantedRun) return settle(stalled(wantedRun.stalled.reason, wantedRun.stalled.message));
  if ('waiting' in wantedRun) {
    if (object.spec.suspend) return settle(suspended('spec.suspend is true.'));
    return settle(waiting(wantedRun.waiting.reason, wantedRun.waiting.message));
  }

  const { digest, inputs } = wantedRun;
  // A Job of another run is in nobody's interest any more.
  const sameRun = before.inputDigest === digest;
  const current = jobs.filter((job) => digestAnnotation(job) === digest && !isDeleting(job));
  // Nor is one whose attempt was given up: the status says so first, so that nothing is forgotten if we end in between.
  const job = current
    .filter((j) => !sameRun || attemptOf(j) >= (before.attempt ?? 1))
    .sort((a, b) => attemptOf(b) - attemptOf(a))[0];
  plan.remove = jobs.filter((j) => j !== job && !isDeleting(j));
  const podsOfJob = podsOf(job, pods);

  if (isDone(before, digest)) {
    return settle([...ready(kind.doneReason, kind.describe(before)), ...extras(kind, 'Done', '')], {
      lastFailure: undefined,
    });
  }

  const workers = kind.workers?.(object);
  const startedBefore = sameRun ? before.startTime : undefined;
  const lostBefore = sameRun ? (before.workers?.lost ?? 0) : 0;
  /** The status when no pod is at work. */
  const atRest = (lost: number): Partial<RunStatus> =>
    workers
      ? {
          workers: { desired: workers.replicas, ready: 0, lost },
          ring: before.ring && { ...before.ring, members: [] },
          startTime: undefined,
        }
      : {};

  const superseded = before.artifact ? 'A run of the present spec is not done; the artifact is of an earlier one.' : '';
  if (object.spec.suspend) {
    // The status has to know the attempt before its Job is gone, or the next would have its name.
    const isKnown = sameRun && job !== undefined && before.attempt === attemptOf(job);
    if (job && isKnown) plan.remove.push(job);
    const begun = job && {
      inputDigest: digest,
      lineage: inputs,
      resolved: frozen(kind, observed, digest, job) as RunStatus['resolved'],
      attempt: attemptOf(job),
    };
    const leaving = jobs.length > 0;
    const message = leaving ? 'spec.suspend is true; the worker saves its state and ends.' : 'spec.suspend is true.';
    return settle([...suspended(message), ...extras(kind, 'Idle', superseded)], {
      ...begun,
      ...atRest(lostBefore),
      jobName: undefined,
      // What stood in the way of pods that are no more.
      lastFailure: hasFailed(before) ? before.lastFailure : undefined,
    });
  }

  const failure = failedBefore(before, digest, generation);
  const over = job && (jobCondition(job, 'Complete') || jobCondition(job, 'Failed'));
  if (failure && !over) {
    // A failure that the operator decided on leaves the Job for now.
    if (job) plan.remove.push(job);
    const cause = before.lastFailure ?? { reason: 'Failed', message: 'The run failed.' };
    return settle([...stalled(cause.reason, howToRetry(cause.message)), ...extras(kind, 'Failed', superseded)]);
  }

  const store = observeStore(object.spec.store, observed.claim, object.metadata.namespace);
  if ('stalled' in store) return settle(stalled(store.stalled.reason, store.stalled.message));
  if ('waiting' in store) return settle(waiting(store.waiting.reason, store.waiting.message));

  const elsewhere = observed.inputs.find((input) => 'uri' in input && !input.uri.startsWith(`${store.uri}/`));
  if (elsewhere && 'uri' in elsewhere) {
    const { kind: inputKind, name } = elsewhere.entry;
    return settle(
      stalled(
        'StoreMismatch',
        `spec.store is ${store.uri}, but ${inputKind} ${name} lies at ${elsewhere.uri}; both must use the same store.`,
      ),
    );
  }

  const resolved = frozen(kind, observed, digest, job);
  const started = { inputDigest: digest, lineage: inputs, resolved: resolved as RunStatus['resolved'] };

  if (job && jobCondition(job, 'Complete')) {
    const result = resultOf(podsOfJob);
    if (result) {
      const rest = atRest(countWorkers(job, podsOfJob, lostBefore).lost);
      return finish(kind, plan, settle, observed, { digest, job, result, storeUri: store.uri, started, rest });
    }
    // Its pod is gone and the result with it: the next attempt finds the finished run in the store.
    plan.remove.push(job);
    return settle(
      [
        ...progressing('ResultLost', `The pod of Job ${job.metadata?.name} is gone; its result is read again.`),
        ...extras(kind, 'Idle', superseded),
      ],
      { ...started, attempt: attemptOf(job) + 1 },
    );
  }
  const failedEarlier = !failure && sameRun && hasFailed(before);
  if (job && (over || failedEarlier)) {
    const earlier = before.history?.[0];
    if (!failure && earlier?.result === 'Failed' && earlier.inputDigest === digest) {
      // This Job's failure is known, and the spec was changed since.
      plan.remove.push(job);
      return settle(
        [
          ...progressing('ReplacingRun', 'The spec changed; the run is tried again.'),
          ...extras(kind, 'Idle', superseded),
        ],
        { ...started, ...atRest(0), attempt: attemptOf(job) + 1 },
      );
    }
    const rest = atRest(workers ? countWorkers(job, podsOfJob, lostBefore).lost : 0);
    const cause = jobFailure(job, podsOfJob, observed.claims);
    return fail(kind, plan, settle, observed, {
      digest,
      job,
      pods: podsOfJob,
      cause,
      superseded,
      started: { ...started, ...rest },
    });
  }

  if (!job) {
    // One that is on its way out has to be gone first: it may hold the same name and writes the same run.
    const attempt = nextAttempt(before, digest);
    const name = childName(kind.component, object.metadata.name, digest, attempt);
    const lost = hasFailed(before) ? 0 : lostBefore;
    // Its pods outlive a Job, and two of one rank would write the same run.
    const leaving = pods.some((pod) => !hasEnded(pod) && pod.metadata?.ownerReferences?.some((o) => o.kind === 'Job'));
    if (jobs.length > 0 || leaving) {
      return settle(
        [
          ...progressing('ReplacingRun', 'Waits until the pods of the run before have ended.'),
          ...extras(kind, 'Idle', superseded),
        ],
        { ...started, ...atRest(lost), startTime: startedBefore, attempt },
      );
    }
    const run = `${object.metadata.uid}-${digest.slice('sha256:'.length, 'sha256:'.length + 16)}`;
    plan.create.push(
      runJob({
        component: kind.component,
        name,
        namespace: object.metadata.namespace,
        owner: object.metadata.name,
        ownerReference: ownerReference(object),
        inputDigest: digest,
        resolved,
        generation,
        queue: object.metadata.labels?.[QUEUE_LABEL],
        workers: jobWorkers(workers, lost),
        template: trainerPodTemplate(
          {
            component: kind.component,
            owner: object.metadata.name,
            image: kind.image(resolved),
            task: kind.task(object, resolved, run, inputs),
            ...kind.pod(object),
            store: store.claim,
            source: kind.source?.(object),
            intake: options.intake,
          },
          'Never',
        ),
      }),
    );
    return settle([...progressing('Starting', `Job ${name} starts.`), ...extras(kind, 'Starting', superseded)], {
      ...started,
      ...atRest(lost),
      startTime: startedBefore,
      attempt,
      jobName: name,
      progress: undefined,
    });
  }

  const present: Partial<RunStatus> = {
    ...started,
    attempt: attemptOf(job),
    jobName: job.metadata?.name,
    progress: observed.progress ? (kind.progress(observed.progress) as RunStatus['progress']) : before.progress,
  };

  const found = job.spec?.suspend
    ? undefined
    : jobObstacle(job, { pods: podsOfJob, claims: observed.claims, events: observed.events }, now);
  const obstacle = found && asBefore(before.lastFailure, found);
  present.lastFailure = obstacle
    ? remember(before.lastFailure, obstacle, now)
    : leftOf(before.lastFailure, job, podsOfJob, now);
  if (obstacle && isNews(before.lastFailure, obstacle)) {
    plan.events.push({ type: 'Warning', reason: obstacle.reason, message: obstacle.message });
  }
  if (obstacle && Number(job.metadata?.annotations?.[GENERATION_ANNOTATION] ?? generation) < generation) {
    // What the user changed since may be what the message asked for, and the Job's pods stay as they are.
    return settle(
      [
        ...progressing('ReplacingRun', 'The spec changed while its pods did not run; the run goes on in a new Job.'),
        ...extras(kind, 'Idle', superseded),
      ],
      { ...present, ...atRest(lostBefore), attempt: attemptOf(job) + 1 },
    );
  }
  if (observed.claims.some((claim) => claim.status?.phase === 'Pending')) plan.lookAgainSeconds = PROVISIONING_SECONDS;
  if (!workers) return settle(watch(kind, job, podsOfJob, observed.progress, obstacle, superseded), present);

  // ------------------------------------------------------------------ several workers, and what becomes of them
  const { policy } = workers;
  const count = countWorkers(job, podsOfJob, lostBefore);
  const startedAt = startedBefore ?? startTime(job);
  Object.assign(present, {
    workers: count,
    startTime: job.spec?.suspend ? undefined : startedAt,
    ring: formRing(job, podsOfJob, observed.joined, before.ring) ?? before.ring,
  });
  if (count.lost > lostBefore) plan.events.push(lossEvent(podsOfJob, count.lost, policy.maxWorkerLosses));

  const stop = (cause: RunFailure) =>
    fail(kind, plan, settle, observed, {
      digest,
      job,
      pods: [],
      cause,
      superseded,
      started: { ...started, ...atRest(count.lost) },
    });
  const why = (obstacle ?? present.lastFailure)?.message;
  const verdict = judgeWorkers(policy, job, podsOfJob, count, before, startedAt, why, now);
  if ('fail' in verdict) return stop(verdict.fail);
  if ('recreate' in verdict) {
    plan.events.push({ type: 'Normal', reason: 'RecreatingJob', message: verdict.recreate });
    return settle([...progressing('RecreatingJob', verdict.recreate), ...extras(kind, 'Idle', superseded)], {
      ...present,
      attempt: attemptOf(job) + 1,
    });
  }
  const times = [plan.lookAgainSeconds, verdict.lookAgainSeconds].filter((seconds) => seconds !== undefined);
  plan.lookAgainSeconds = times.length === 0 ? undefined : Math.min(...times);

  const runningSince = before.conditions?.find((c) => c.type === 'Running' && c.status === 'True')?.lastTransitionTime;
  const hang =
    allRun(job, podsOfJob) && runningSince !== undefined
      ? findHang(
          working(podsOfJob),
          observed.reports,
          policy.hang.timeoutSeconds,
          (now.getTime() - Date.parse(runningSince)) / 1000,
        )
      : undefined;
  if (!hang) return settle(watch(kind, job, podsOfJob, observed.progress, obstacle, superseded), present);
  const { action } = policy.hang;
  if (action === 'Fail') {
    return stop({
      reason: 'Hung',
      message: hang.message,
      pod: hang.slow?.metadata?.name,
    });
  }
  const restarts = action === 'RestartWorker' && hang.slow !== undefined;
  if (restarts) plan.restart.push(hang.slow!);
  const message = restarts ? `${hang.message} Its pod is replaced.` : hang.message;
  const isNew = before.conditions?.find((c) => c.type === 'Ready')?.reason !== 'Hung';
  if (isNew) plan.events.push({ type: 'Warning', reason: 'Hung', message });
  return settle([...progressing('Hung', message), ...extras(kind, 'Running', superseded)], present);
}

const hasFailed = (status: RunStatus) =>
  status.conditions?.some((c) => c.type === 'Failed' && c.status === 'True') ?? false;

function lossEvent(pods: readonly V1Pod[], lost: number, most: number): PlannedEvent {
  const exitCode = (pod: V1Pod) => pod.status?.containerStatuses?.[0]?.state?.terminated?.exitCode;
  const newest = pods
    .filter((pod) => pod.status?.phase === 'Failed' && exitCode(pod) !== EXIT.INTERRUPTED)
    .sort((a, b) => String(b.metadata?.creationTimestamp).localeCompare(String(a.metadata?.creationTimestamp)))[0];
  const state = newest?.status?.containerStatuses?.[0]?.state?.terminated;
  const why = state ? `, with exit code ${state.exitCode}${state.reason ? ` (${state.reason})` : ''}` : '';
  const who = newest
    ? `Rank ${rankOf(newest) ?? 0} (pod ${newest.metadata?.name}) was lost${why}`
    : 'A worker was lost';
  return { type: 'Warning', reason: 'WorkerLost', message: `${who}: ${lost} of at most ${most} in all.` };
}

/** A suspended run goes on as the next attempt, one whose Job vanished as the same; a lost result says which itself. */
function nextAttempt(before: RunStatus, digest: string): number {
  if (before.inputDigest !== digest) return 1;
  const wasSuspended = before.conditions?.some((c) => c.type === 'Suspended' && c.status === 'True') ?? false;
  return (before.attempt ?? (wasSuspended ? 0 : 1)) + (wasSuspended ? 1 : 0);
}

const howToRetry = (message: string) =>
  `${message} To run it again unchanged, annotate ${REQUESTED_AT_ANNOTATION}=<time>.`;

/** A Job that is neither done nor failed. */
function watch(
  kind: KindConditions,
  job: V1Job,
  pods: V1Pod[],
  progress: Progress | undefined,
  obstacle: RunFailure | undefined,
  superseded: string,
): Wanted[] {
  const name = job.metadata?.name;
  if (job.spec?.suspend) {
    return [
      ...progressing('Queued', `Job ${name} is suspended; its queue admits it when there is room.`),
      ...extras(kind, 'Idle', superseded),
    ];
  }
  if (obstacle) {
    const again = obstacle.exitCode !== undefined && !isTerminal(obstacle) ? ' It is tried again.' : '';
    return [...waiting(obstacle.reason, `${obstacle.message}${again}`), ...extras(kind, 'Starting', superseded)];
  }
  if (!allRun(job, pods)) {
    const [there, all] = [working(pods).length, job.spec?.completions ?? 1];
    const message =
      all === 1 ? `Job ${name} starts its pod.` : `Job ${name} starts its pods: ${there} of ${all} workers run.`;
    return [...progressing('Starting', message), ...extras(kind, 'Starting', superseded)];
  }
  const said = progress ? `${progress.stage}, ${Math.floor(progress.percent)} %` : 'running';
  return [...progressing('Running', `Job ${name}: ${said}.`), ...extras(kind, 'Running', superseded)];
}

type Phase = 'Idle' | 'Starting' | 'Running' | 'Done' | 'Failed';

/** The kind's own conditions in a phase of its run. */
function extras(kind: KindConditions, phase: Phase, superseded: string): Wanted[] {
  return kind.extra.map((type) => {
    const reason = phase === 'Done' ? kind.doneReason : superseded && type !== 'Running' ? 'Superseded' : phase;
    const isNow = { Complete: 'Done', Verified: 'Done', Running: 'Running', Failed: 'Failed' }[type] === phase;
    return { type, status: isNow ? 'True' : 'False', reason, message: isNow ? '' : superseded };
  });
}

const rankOfNamed = (pods: readonly V1Pod[], name: string | undefined) => {
  const pod = name === undefined ? undefined : pods.find((candidate) => candidate.metadata?.name === name);
  return pod && rankOf(pod);
};

type Settle = (wanted: Wanted[], extra?: Partial<RunStatus>) => Plan;

/** Every `store://blobs/…` of a result, as the trainer says it, becomes `store://<claim>/<path>/blobs/…`. */
function located(result: Result, storeUri: string): Result {
  const uri = (_key: string, value: unknown) =>
    typeof value === 'string' && value.startsWith('store://blobs/') ? value.replace('store:/', storeUri) : value;
  return JSON.parse(JSON.stringify(result, uri)) as Result;
}

function startTime(job: V1Job): string | undefined {
  return job.status?.startTime ? timestamp(new Date(job.status.startTime)) : undefined;
}

/** When the run began: its first Job, where the status remembers that. */
function startOf(before: RunStatus, run: { digest: string; job: V1Job }): string | undefined {
  return (before.inputDigest === run.digest ? before.startTime : undefined) ?? startTime(run.job);
}

function pushHistory(before: RunStatus, entry: HistoryEntry): HistoryEntry[] {
  const earlier = (before.history ?? []).filter((run) => run.inputDigest !== entry.inputDigest);
  return [entry, ...earlier].slice(0, MAX_HISTORY);
}

function finish<Object extends RunObject, Resolved>(
  kind: RunKind<Object, Resolved>,
  plan: Plan,
  settle: Settle,
  observed: Observed<Object>,
  run: {
    digest: string;
    job: V1Job;
    result: Result;
    storeUri: string;
    started: Partial<RunStatus>;
    rest: Partial<RunStatus>;
  },
): Plan {
  const { object, now } = observed;
  const before: RunStatus = object.status ?? {};
  const result = located(run.result, run.storeUri);
  const { artifact } = result;
  Object.assign(plan.status, run.started, run.rest, {
    progress: undefined,
    ...kind.summarize(result, false),
    artifact,
    jobName: run.job.metadata?.name,
    attempt: attemptOf(run.job),
    lastFailure: undefined,
    history: pushHistory(before, {
      generation: object.metadata.generation,
      inputDigest: run.digest,
      artifactDigest: artifact.digest,
      result: 'Succeeded',
      startTime: startOf(before, run),
      completionTime: timestamp(now),
    }),
  });
  const message = kind.describe(plan.status);
  plan.events.push({ type: 'Normal', reason: kind.doneReason, message });
  return settle([...ready(kind.doneReason, message), ...extras(kind, 'Done', '')]);
}

function fail<Object extends RunObject, Resolved>(
  kind: RunKind<Object, Resolved>,
  plan: Plan,
  settle: Settle,
  observed: Observed<Object>,
  run: {
    digest: string;
    job: V1Job;
    /** That may hold a result which came with the failure. */
    pods: V1Pod[];
    cause: RunFailure;
    superseded: string;
    started: Partial<RunStatus>;
  },
): Plan {
  const { object, now } = observed;
  const before: RunStatus = object.status ?? {};
  const failure = { ...run.cause, rank: kind.workers && rankOfNamed(observed.pods, run.cause.pod) };
  const result = resultOf(run.pods);
  const known = failedBefore(before, run.digest, object.metadata.generation);
  Object.assign(plan.status, result ? kind.summarize(result, true) : {}, run.started, {
    jobName: run.job.metadata?.name,
    attempt: attemptOf(run.job),
    progress: undefined,
  });
  if (!known) {
    plan.status.lastFailure = { ...failure, message: failure.message.slice(0, 1024), time: timestamp(now) };
    plan.status.history = pushHistory(before, {
      generation: object.metadata.generation,
      inputDigest: run.digest,
      result: 'Failed',
      startTime: startOf(before, run),
      completionTime: timestamp(now),
    });
    plan.events.push({ type: 'Warning', reason: failure.reason, message: failure.message });
  }
  const cause = plan.status.lastFailure ?? failure;
  return settle([...stalled(cause.reason, howToRetry(cause.message)), ...extras(kind, 'Failed', run.superseded)]);
}
