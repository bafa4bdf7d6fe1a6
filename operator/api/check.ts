/** What the API server could not refuse, said with the field's path. */
import type { z } from 'zod';
import { DatasetSpec } from './dataset.ts';
import { InferenceServiceSpec } from './inferenceservice.ts';
import { ModelExportSpec } from './modelexport.ts';
import { TrainingJobSpec } from './trainingjob.ts';

const SPECS = {
  Dataset: DatasetSpec,
  TrainingJob: TrainingJobSpec,
  ModelExport: ModelExportSpec,
  InferenceService: InferenceServiceSpec,
} as const satisfies Record<string, z.ZodType>;

/** Messages `spec.<path>: <what is wrong>`; none if the spec is good. */
export function checkSpec(kind: keyof typeof SPECS, object: { spec: unknown }): string[] {
  const outcome = SPECS[kind].safeParse(object.spec);
  return outcome.success
    ? []
    : outcome.error.issues.map((issue) => `${['spec', ...issue.path].join('.')}: ${issue.message}`);
}
