/** Conditions as kstatus reads them, and what each type and reason means to a person. */
import { z } from 'zod';

export const Condition = z
  .strictObject({
    type: z.string().max(316).describe('`Ready`, at most one of `Reconciling` and `Stalled`, and the kind’s own.'),
    status: z.enum(['True', 'False', 'Unknown']).describe('Whether it holds.'),
    reason: z.string().max(1024).describe('One word for programs.'),
    message: z.string().max(32_768).describe('A sentence for people: what is the matter, and what to do.'),
    observedGeneration: z.int().min(0).describe('Generation of the spec it speaks of.'),
    lastTransitionTime: z.string().max(64).meta({ format: 'date-time' }).describe('When `status` last changed.'),
  })
  .describe('One aspect of the object’s state.');
export type Condition = z.infer<typeof Condition>;

export interface ConditionMeaning {
  type: string;
  /** What the status True says. */
  meaning: string;
}

const meaning =
  (type: string) =>
  (words: string): ConditionMeaning => ({ type, meaning: words });

/** Conditions by type; what they say of the object is the kind's to add. */
export const CONDITIONS = {
  Ready: meaning('Ready'),
  Available: meaning('Available'),
  Running: meaning('Running'),
  Complete: meaning('Complete'),
  Failed: meaning('Failed'),
  Verified: meaning('Verified'),
  /** On every kind. */
  progress: [
    {
      type: 'Reconciling',
      meaning: 'Work goes on, or waits for something that is yet to come; it goes on by itself when that changes.',
    },
    { type: 'Stalled', meaning: 'It cannot go on until the user changes something; the message says what.' },
    { type: 'Suspended', meaning: '`spec.suspend` is true.' },
  ],
} as const satisfies Record<string, ((words: string) => ConditionMeaning) | readonly ConditionMeaning[]>;

export interface ReasonMeaning {
  reason: string;
  /** The condition that is then True beside it, or `Ready`. */
  with: 'Ready' | 'Reconciling' | 'Stalled' | 'Suspended';
  meaning: string;
}

const STORE_REASONS: readonly ReasonMeaning[] = [
  {
    reason: 'InvalidSpec',
    with: 'Stalled',
    meaning: 'A value is wrong that the API server could not refuse; the message names the field.',
  },
  { reason: 'StoreNotFound', with: 'Reconciling', meaning: 'The claim of the store does not exist yet.' },
  { reason: 'StoreNotShareable', with: 'Stalled', meaning: 'The claim is ReadWriteOncePod: one pod at a time.' },
  { reason: 'StoreLost', with: 'Stalled', meaning: 'The claim lost its volume.' },
  {
    reason: 'ClaimPending',
    with: 'Reconciling',
    meaning: 'A claim that the pods mount has no volume; the message says what its provisioner or class lacks.',
  },
  { reason: 'Suspended', with: 'Suspended', meaning: '`spec.suspend` is true.' },
];

/** What keeps pods from being made or from running. It passes when what the message names is changed. */
const POD_REASONS: readonly ReasonMeaning[] = [
  { reason: 'QuotaExceeded', with: 'Reconciling', meaning: 'A ResourceQuota leaves no room for the pods.' },
  {
    reason: 'PodSecurityViolated',
    with: 'Reconciling',
    meaning: 'Pod Security refuses the pods, as something has changed them.',
  },
  { reason: 'LimitRangeViolated', with: 'Reconciling', meaning: 'A LimitRange refuses the pods’ resources.' },
  { reason: 'ServiceAccountNotFound', with: 'Reconciling', meaning: 'The pods’ service account does not exist.' },
  { reason: 'PodsRefused', with: 'Reconciling', meaning: 'The API server refuses the pods; its words follow.' },
  { reason: 'Unschedulable', with: 'Reconciling', meaning: 'No node fits the pod; the scheduler’s words follow.' },
  { reason: 'ImagePullBackOff', with: 'Reconciling', meaning: 'The image cannot be pulled.' },
  { reason: 'InvalidImageName', with: 'Reconciling', meaning: 'The image’s name is none.' },
  { reason: 'Evicted', with: 'Reconciling', meaning: 'The node ran out of what the pod used; another pod follows.' },
  {
    reason: 'OOMKilled',
    with: 'Reconciling',
    meaning: 'The pod ran out of memory. It is tried again; raise `limits.memory`.',
  },
  { reason: 'StoreFull', with: 'Reconciling', meaning: 'The store’s volume is full. It is tried again.' },
  {
    reason: 'Error',
    with: 'Reconciling',
    meaning: 'The process ended with an exit code and said no more; its last lines follow. It is tried again.',
  },
  {
    reason: 'NoAccelerator',
    with: 'Stalled',
    meaning: 'An accelerator was asked for and none was found; nothing runs on the CPU instead.',
  },
];

const mismatch: ReasonMeaning = {
  reason: 'StoreMismatch',
  with: 'Stalled',
  meaning: 'What it consumes lies in another store than `spec.store`.',
};

/** What it consumes by name, of `kind`. */
const input = (kind: string): ReasonMeaning[] => [
  { reason: `${kind}NotFound`, with: 'Reconciling', meaning: `The ${kind} it names does not exist yet.` },
  {
    reason: `${kind}NotReady`,
    with: 'Reconciling',
    meaning: `The ${kind} it names is not ready; its message follows.`,
  },
];

const RUN_REASONS: readonly ReasonMeaning[] = [
  { reason: 'Starting', with: 'Reconciling', meaning: 'The Job of the run is made and its pod starts.' },
  { reason: 'Queued', with: 'Reconciling', meaning: 'The Job is suspended by its queue.' },
  { reason: 'Running', with: 'Reconciling', meaning: 'The pod works; the message tells how far it is.' },
  { reason: 'ReplacingRun', with: 'Reconciling', meaning: 'The pods of the run before have to end first.' },
  {
    reason: 'ResultLost',
    with: 'Reconciling',
    meaning: 'The pod was deleted before its result was read; the next one finds the finished work in the store.',
  },
];

const WORKER_REASONS: readonly ReasonMeaning[] = [
  {
    reason: 'RecreatingJob',
    with: 'Reconciling',
    meaning: 'The Job lost `policy.recreateAfter` workers; the next attempt goes on from the last checkpoint.',
  },
  {
    reason: 'Hung',
    with: 'Reconciling',
    meaning:
      'Steps stand still for `policy.hang.timeoutSeconds`; the message names the worker that the others wait for. With `Stalled` where `policy.hang.action` is `Fail`.',
  },
  { reason: 'TooManyWorkersLost', with: 'Stalled', meaning: 'More workers were lost than `policy.maxWorkerLosses`.' },
  {
    reason: 'StartTimeout',
    with: 'Stalled',
    meaning: 'Not all workers ran within `policy.startTimeoutSeconds`; the message says what kept them.',
  },
  {
    reason: 'DeadlineExceeded',
    with: 'Stalled',
    meaning: 'The run was not done within `policy.activeDeadlineSeconds`.',
  },
];

const RERUN_REASONS: readonly ReasonMeaning[] = [
  { reason: 'RerunNever', with: 'Stalled', meaning: 'The spec changed, and `spec.rerun` is `Never`.' },
];

/** The reasons that the operator gives, by kind. Beside these, a pod's own reason is passed on (`ErrImagePull`, ...). */
export const REASONS: Record<'Dataset' | 'TrainingJob' | 'ModelExport' | 'InferenceService', readonly ReasonMeaning[]> =
  {
    Dataset: [
      { reason: 'Packed', with: 'Ready', meaning: 'The pictures are packed; the message counts them.' },
      ...RUN_REASONS,
      ...POD_REASONS,
      ...STORE_REASONS,
    ],
    TrainingJob: [
      { reason: 'Trained', with: 'Ready', meaning: 'The model exists; the message tells its accuracy.' },
      ...RUN_REASONS,
      ...WORKER_REASONS,
      ...input('Dataset'),
      ...RERUN_REASONS,
      mismatch,
      ...POD_REASONS,
      ...STORE_REASONS,
    ],
    ModelExport: [
      { reason: 'Verified', with: 'Ready', meaning: 'The export holds its limits.' },
      {
        reason: 'VerificationFailed',
        with: 'Stalled',
        meaning: 'The export does not hold its limits; its numbers are kept.',
      },
      ...RUN_REASONS,
      {
        reason: 'CheckpointNotFound',
        with: 'Reconciling',
        meaning: 'The TrainingJob is ready and has no such checkpoint.',
      },
      ...input('TrainingJob'),
      ...input('Dataset'),
      ...RERUN_REASONS,
      mismatch,
      ...POD_REASONS,
      ...STORE_REASONS,
    ],
    InferenceService: [
      { reason: 'Serving', with: 'Ready', meaning: 'The revision of this spec has all traffic.' },
      { reason: 'ScaledToZero', with: 'Ready', meaning: '`spec.replicas` is 0.' },
      { reason: 'RevisionCreated', with: 'Reconciling', meaning: 'A Deployment for the new model or runtime is made.' },
      {
        reason: 'RollingOut',
        with: 'Reconciling',
        meaning: 'The replicas of the new revision start; the old one answers.',
      },
      {
        reason: 'ReplacingRevision',
        with: 'Reconciling',
        meaning: 'A former Deployment of the same name has to go first.',
      },
      ...input('ModelExport'),
      mismatch,
      ...POD_REASONS,
      ...STORE_REASONS,
    ],
  };
