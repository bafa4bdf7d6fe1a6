/** ModelExport: makes a verified ONNX model of a trained one. */
import { z } from 'zod';
import { Digest, OnnxFormat, TensorSignature, VerifyLimits } from '../../trainer-image/contract.ts';
import type { FoveaObject } from './object.ts';
import { PodOverrides } from './pod.ts';
import { referenceTo } from './reference.ts';
import { Resources } from './resources.ts';
import { Decimal, PROGRESS, ResolvedImage, RUN_STATUS } from './status.ts';
import { Store } from './store.ts';
import { Rerun } from './trainingjob.ts';

export const ModelExportSpec = z.strictObject({
  suspend: z.boolean().default(false).describe('Stops the work; it goes on when false again.'),
  rerun: Rerun.default('OnInputChange'),
  source: z
    .strictObject({
      type: z.enum(['TrainingJob']).describe('`TrainingJob`: a model trained here.'),
      trainingJob: referenceTo('TrainingJob')
        .extend({
          checkpoint: z.enum(['Best', 'Last']).default('Best').describe('Which of its models.'),
        })
        .optional()
        .describe('Only with type `TrainingJob`.'),
    })
    .meta({ union: { TrainingJob: 'trainingJob' }, unionRequired: true })
    .describe('What is exported.'),
  format: z
    .strictObject({
      type: z.enum(['ONNX']).default('ONNX').describe('`ONNX`: Open Neural Network Exchange.'),
      onnx: OnnxFormat.optional().describe('Only with type `ONNX`.'),
    })
    .meta({ union: { ONNX: 'onnx' } })
    .optional()
    .describe('What it becomes.'),
  verify: VerifyLimits.extend({
    datasetRef: referenceTo('Dataset')
      .optional()
      .describe('The Dataset it is measured on. Absent: the one it was trained on.'),
  })
    .optional()
    .describe('What it must hold before anything can use it.'),
  resources: Resources.optional(),
  store: Store.optional(),
  pod: PodOverrides.optional(),
});
export type ModelExportSpec = z.input<typeof ModelExportSpec>;

export const ModelExportStatus = z.strictObject({
  ...RUN_STATUS,
  resolved: z
    .strictObject({
      image: ResolvedImage,
      onnx: OnnxFormat,
      verify: VerifyLimits,
    })
    .optional()
    .describe('All defaults, frozen when the run started.'),
  progress: z
    .strictObject({
      ...PROGRESS,
    })
    .optional()
    .describe('How far the present run is.'),
  verification: z
    .strictObject({
      accuracy: Decimal.describe('Of the export, between 0 and 1.'),
      sourceAccuracy: Decimal.describe('Of the model it came from.'),
      dropPoints: Decimal.describe('Accuracy lost, in percentage points.'),
      maxLogitDifference: Decimal.describe('Relative difference of the logits.'),
      evaluated: z.int().min(0).describe('Pictures it was measured on.'),
      sizeBytes: z.int().min(0).describe('Size of the model.'),
      predictions: Digest.describe('Blob with the prediction for each picture, as JSON lines.'),
    })
    .optional()
    .describe('What was measured; of a failed verification too.'),
  artifacts: z
    .array(
      z.strictObject({
        target: z.string().max(64).describe('The runtime it is for.'),
        uri: z.string().max(1024).describe('Where it lies.'),
        digest: Digest,
      }),
    )
    .max(8)
    .optional()
    .meta({ listMapKeys: ['target'] })
    .describe('The model for each target.'),
  signature: z
    .strictObject({
      inputs: z.array(TensorSignature).max(16).describe('Inputs.'),
      outputs: z.array(TensorSignature).max(16).describe('Outputs.'),
    })
    .optional()
    .describe('Inputs and outputs of the model.'),
});
export type ModelExportStatus = z.infer<typeof ModelExportStatus>;
export type ModelExport = FoveaObject<ModelExportSpec, ModelExportStatus>;
