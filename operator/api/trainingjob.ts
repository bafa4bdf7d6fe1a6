/** TrainingJob: trains a network on a Dataset. */
import { z } from 'zod';
import { CheckpointEntry, Checkpoints, Digest, Model, Recipe } from '../../trainer-image/contract.ts';
import type { FoveaObject } from './object.ts';
import { PodOverrides } from './pod.ts';
import { referenceTo } from './reference.ts';
import { Resources } from './resources.ts';
import { Decimal, PROGRESS, ResolvedImage, RUN_STATUS } from './status.ts';
import { Store } from './store.ts';

export const Rerun = z
  .enum(['OnSpecChange', 'OnInputChange', 'Never'])
  .describe(
    'When a finished run is done again: `OnSpecChange`: the spec changed. `OnInputChange`: also when what it consumes changed. `Never`: only by the annotation `fovea.dev/requested-at`.',
  );

export const TrainingJobSpec = z.strictObject({
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
      replicas: z.int().min(1).max(1).default(1).describe('Pods that train together.'),
      resources: Resources.optional(),
      pod: PodOverrides.optional(),
    })
    .optional()
    .describe('The pods.'),
  checkpoints: Checkpoints.prefault({}),
  store: Store.optional(),
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
