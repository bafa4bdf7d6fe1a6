/** Status fields that kinds share. */
import { z } from 'zod';
import { Artifact, Digest } from '../../trainer-image/contract.ts';
import { Condition } from './conditions.ts';

export const Time = z.string().max(64).meta({ format: 'date-time' });
/** A number as a decimal string, since the API conventions have no floats in status. */
export const Decimal = z.string().max(64);

const LineageEntry = z.strictObject({
  kind: z.string().max(63).describe('Kind consumed.'),
  name: z.string().max(253).describe('Its name.'),
  uid: z.string().max(64).describe('Its uid.'),
  generation: z.int().min(0).describe('Its generation.'),
  digest: Digest.describe('Digest of what was consumed.'),
});
export type LineageEntry = z.infer<typeof LineageEntry>;

const HistoryEntry = z.strictObject({
  generation: z.int().min(0).describe('Generation of the spec.'),
  inputDigest: Digest.describe('Digest of the run’s inputs.'),
  artifactDigest: Digest.optional().describe('Digest of its result.'),
  result: z.enum(['Succeeded', 'Failed']).describe('How it ended.'),
  startTime: Time.optional().describe('When it started.'),
  completionTime: Time.optional().describe('When it ended.'),
});
export type HistoryEntry = z.infer<typeof HistoryEntry>;

/** Fields of every kind. */
export const COMMON_STATUS = {
  observedGeneration: z.int().min(0).optional().describe('Generation of the spec that this status speaks of.'),
  conditions: z
    .array(Condition)
    .max(16)
    .optional()
    .meta({ listMapKeys: ['type'] })
    .describe('State, see below.'),
};

/** How far a run is; each kind may say more. */
export const PROGRESS = {
  stage: z.string().max(64).describe('What is being done.'),
  percent: z.int().min(0).max(100).describe('Share done, in percent.'),
};

/** The image that a run's pods have, in `status.resolved`. */
export const ResolvedImage = z.string().max(1024).describe('Image of the pods.');

/** Fields of the kinds whose work is a run: Dataset, TrainingJob, ModelExport. */
export const RUN_STATUS = {
  ...COMMON_STATUS,
  inputDigest: Digest.optional().describe('Digest of the spec’s fields that change numbers and of what is consumed.'),
  lineage: z
    .array(LineageEntry)
    .max(8)
    .optional()
    .meta({ listMapKeys: ['kind'] })
    .describe('What the run consumed.'),
  artifact: Artifact.optional().describe('The result. It stays until a newer one is good.'),
  attempt: z.int().min(1).optional().describe('How often the run’s Job was made.'),
  jobName: z.string().max(63).optional().describe('The Job that carries out the run.'),
  lastFailure: z
    .strictObject({
      reason: z.string().max(64).describe('One word.'),
      message: z.string().max(1024).describe('What happened and what to do.'),
      pod: z.string().max(253).optional().describe('The pod it happened in.'),
      rank: z.int().min(0).optional().describe('The rank of that pod.'),
      exitCode: z.int().optional().describe('Exit code of its process.'),
      time: Time.optional().describe('When it was seen.'),
    })
    .optional()
    .describe('The failure that is not overcome yet.'),
  history: z.array(HistoryEntry).max(10).optional().describe('The last runs, newest first.'),
};

const Run = z.strictObject(RUN_STATUS);
/** The shared part of the three run kinds' status, with what each adds left open. */
export type RunStatus = z.infer<typeof Run> & {
  resolved?: unknown;
  progress?: unknown;
  startTime?: string;
  workers?: { desired: number; ready: number; lost: number };
  ring?: { generation: number; members: { rank: number; pod: string; uid: string }[] };
};
