/** A ModelExport's run: its task, and its status from a result. */
import { OnnxFormat, VerifyLimits } from '../../trainer-image/contract.ts';
import { checkSpec } from '../api/check.ts';
import type { ModelExport, ModelExportStatus } from '../api/modelexport.ts';
import { withDefaults } from '../manifests/resources.ts';
import { decimal } from './decimal.ts';
import type { RunKind } from './run.ts';

/** Frozen when a run starts. */
export interface ModelExportResolved {
  image: string;
  onnx: OnnxFormat;
  verify: VerifyLimits;
}

export const MODEL_EXPORT: RunKind<ModelExport, ModelExportResolved> = {
  component: 'modelexport',
  doneReason: 'Verified',
  extra: ['Complete', 'Failed', 'Verified'],
  rerun: 'OnInputChange',
  check: (modelExport) => checkSpec('ModelExport', modelExport),
  resolve: ({ spec }, options) => {
    const { datasetRef: _, ...limits } = spec.verify ?? {};
    return {
      image: options.trainerImage,
      onnx: OnnxFormat.parse(spec.format?.onnx ?? {}),
      verify: VerifyLimits.parse(limits),
    };
  },
  image: (resolved) => resolved.image,
  task: (_, { onnx, verify }, run, [model, dataset]) => ({
    kind: 'export',
    run,
    model: { digest: model.digest },
    dataset: { digest: dataset.digest },
    onnx,
    verify,
  }),
  pod: ({ spec }) => ({ resources: withDefaults('export', spec.resources), pod: spec.pod }),
  summarize: (result, failed) => {
    if (result.kind !== 'export') return {};
    const { verification: v } = result;
    const verification = {
      accuracy: decimal(v.accuracy),
      sourceAccuracy: decimal(v.sourceAccuracy),
      dropPoints: decimal(v.dropPoints),
      maxLogitDifference: decimal(v.maxLogitDifference),
      sizeBytes: v.sizeBytes,
      evaluated: v.evaluated,
      predictions: v.predictions,
    };
    // Of a failed verification only the numbers are kept: the artifact stays the one that passed.
    if (failed) return { verification };
    return {
      verification,
      signature: result.signature,
      artifacts: [{ target: 'OnnxRuntime', uri: result.artifact.uri, digest: result.artifact.digest }],
    };
  },
  progress: ({ stage, percent }) => ({ stage, percent: Math.floor(percent) }),
  describe: (status) => {
    const { verification } = status as ModelExportStatus;
    return `Verified on ${verification?.evaluated} pictures: accuracy ${verification?.accuracy}, the source's is ${verification?.sourceAccuracy}.`;
  },
};
