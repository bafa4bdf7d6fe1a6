/** TrainingJob: trains a network on a Dataset. */
import { z } from 'zod';
import { CheckpointEntry, Checkpoints, Digest, MAX_WORKERS, Model, Recipe } from '../../trainer-image/contract.ts';
import type { FoveaObject } from './object.ts';
import { PodOverrides } from './pod.ts';
import { referenceTo } from './reference.ts';
import { Resources } from './resources.ts';
import { Decimal, PROGRESS, ResolvedImage, RUN_STATUS, Time } from './status.ts';
import { Store } from './store.ts';

export const Rerun = z
  .enum(['OnSpecChange', 'OnInputChange', 'Never'])
  .describe(
    'When a finished run is done again: `OnSpecChange`: the spec changed. `OnInputChange`: also when what it consumes changed. `Never`: only by the annotation `fovea.dev/requested-at`.',
  );

export const Policy = z
  .strictObject({
    maxWorkerLosses: z
      .int()
      .min(0)
      .max(10_000)
      .default(10)
      .describe(
        'Workers that may be lost, over all attempts of a run; one more fails it. A worker that was evicted, drained or told to stop is not lost.',
      ),
    recreateAfter: z
      .int()
      .min(1)
      .max(10_000)
      .default(4)
      .describe(
        'Workers lost by one Job after which the next attempt goes on from a checkpoint in a new Job: the Job controller waits ever longer before it replaces a pod.',
      ),
    startTimeoutSeconds: z
      .int()
      .min(1)
      .max(2_592_000)
      .default(1800)
      .describe(
        'The run fails if it takes longer until all workers run: from the start of its Job, or from when a worker went.',
      ),
    activeDeadlineSeconds: z
      .int()
      .min(1)
      .max(315_360_000)
      .optional()
      .describe(
        'The run fails if it is not done in this time from its start, or from when it was last resumed. Absent: no limit.',
      ),
    hang: z
      .strictObject({
        timeoutSeconds: z
          .int()
          .min(1)
          .max(86_400)
          .default(600)
          .describe('A run whose steps stand still for this long, while all workers run, hangs.'),
        action: z
          .enum(['RestartWorker', 'Fail', 'Report'])
          .default('RestartWorker')
          .describe(
            '`RestartWorker`: the pod of the worker that the others wait for is replaced. `Fail`: the run fails. `Report`: it is only said.',
          ),
      })
      .prefault({})
      .describe('What is done when training stands still.'),
    childrenTTLSecondsAfterFinished: z
      .int()
      .min(0)
      .max(31_536_000)
      .default(86_400)
      .describe('A finished Job, and with it the logs of its pods, is deleted after this time. Never the TrainingJob.'),
  })
  .describe('What is done when workers are lost or stand still.');
export type Policy = z.output<typeof Policy>;

const Ring = z.strictObject({
  generation: z.int().min(0).describe('Counts up with each ring, over all runs.'),
  members: z
    .array(
      z.strictObject({
        rank: z.int().min(0).describe('Its place.'),
        pod: z.string().max(253).describe('Name of the pod.'),
        uid: z.string().max(64).describe('Uid of the pod.'),
      }),
    )
    .max(MAX_WORKERS)
    .meta({ listMapKeys: ['rank'] })
    .describe('The workers, by rank. Empty when none work.'),
});
export type Ring = z.infer<typeof Ring>;

const USUAL_BATCH_SIZE = Recipe.shape.batchSize.parse(undefined);
const RECIPE = 'self.trainer.builtIn.recipe';

export const TrainingJobSpec = z
  .strictObject({
    suspend: z
      .boolean()
      .default(false)
      .describe('Saves a checkpoint and ends the pods; training goes on when false again.'),
    datasetRef: referenceTo('Dataset').describe('The Dataset to train on.'),
    rerun: Rerun.default('OnSpecChange'),
    trainer: z
      .strictObject({
        type: z.enum(['BuiltIn']).describe('`BuiltIn`: Fovea’s own trainer.'),
        builtIn: z
          .strictObject({ model: Model, recipe: Recipe.prefault({}) })
          .optional()
          .describe('Only with type `BuiltIn`.'),
      })
      .meta({ union: { BuiltIn: 'builtIn' }, unionRequired: true })
      .describe('What trains.'),
    workers: z
      .strictObject({
        replicas: z
          .int()
          .min(1)
          .max(MAX_WORKERS)
          .default(1)
          .describe(
            'Pods that train together, each on its part of every batch. A change counts from the next run or attempt.',
          ),
        resources: Resources.optional(),
        pod: PodOverrides.optional(),
      })
      .optional()
      .describe('The pods.'),
    checkpoints: Checkpoints.prefault({}),
    policy: Policy.prefault({}),
    store: Store.optional(),
  })
  .meta({
    rules: [
      {
        rule: `!has(self.workers) || !has(self.workers.replicas) || self.workers.replicas <= (has(self.trainer.builtIn) && has(${RECIPE}) && has(${RECIPE}.batchSize) ? ${RECIPE}.batchSize : ${USUAL_BATCH_SIZE})`,
        message: `must not be above trainer.builtIn.recipe.batchSize (${USUAL_BATCH_SIZE} if absent), so that each worker has a sample of every batch`,
        fieldPath: '.workers.replicas',
      },
    ],
  });

export type TrainingJobSpec = z.input<typeof TrainingJobSpec>;

export const TrainingJobStatus = z.strictObject({
  ...RUN_STATUS,
  resolved: z
    .strictObject({ image: ResolvedImage, model: Model, recipe: Recipe })
    .optional()
    .describe('All defaults, frozen when the run started.'),
  progress: z
    .strictObject({
      ...PROGRESS,
      epoch: z.int().min(0).optional().describe('Epoch, from 1.'),
      epochs: z.int().min(0).optional().describe('Epochs in all.'),
      step: z.int().min(0).optional().describe('Optimizer step.'),
      etaSeconds: z.int().min(0).optional().describe('Seconds left.'),
      samplesPerSecond: Decimal.optional().describe('Throughput.'),
      metrics: z
        .array(
          z.strictObject({
            name: z.string().max(64).describe('`TrainLoss`, `ValidationLoss`, `ValidationAccuracy`.'),
            value: Decimal.describe('Latest value.'),
          }),
        )
        .max(16)
        .optional()
        .meta({ listMapKeys: ['name'] })
        .describe('Latest metrics.'),
    })
    .optional()
    .describe('How far the run is.'),
  startTime: Time.optional().describe('When the run started, or was last resumed.'),
  workers: z
    .strictObject({
      desired: z.int().min(0).describe('Workers of the present attempt.'),
      ready: z.int().min(0).describe('Those that run.'),
      lost: z.int().min(0).describe('Workers lost by this run, over all attempts.'),
    })
    .optional()
    .describe('The pods.'),
  ring: Ring.optional().describe('The workers that train together at present; with one worker there is none.'),
  checkpoints: z
    .array(CheckpointEntry.describe('A checkpoint.'))
    .max(20)
    .optional()
    .meta({ listMapKeys: ['name'] })
    .describe('Models that an export can take.'),
  preprocessing: z
    .strictObject({ digest: Digest })
    .optional()
    .describe('The contract by which pictures become the network’s input.'),
});
export type TrainingJobStatus = z.infer<typeof TrainingJobStatus>;
export type TrainingJob = FoveaObject<TrainingJobSpec, TrainingJobStatus>;
