/** The state of training as one safetensors file: as a checkpoint, and on its way from one worker to another. */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import { z } from 'zod';
import { Digest, Metric } from '../contract.ts';
import type { Weights } from '../models/weights.ts';
import { decodeSafetensors, encodeSafetensors } from './safetensors.ts';

export const FileEntry = z.strictObject({ file: z.string().regex(/^[a-z0-9-]+\.safetensors$/), digest: Digest });

/** The best epoch so far; its file is a whole model file. */
const Best = FileEntry.extend({ epoch: z.int(), metrics: z.array(Metric) });
export type Best = z.infer<typeof Best>;

/**
 * Where training stands. `step` counts finished steps of the run and `epoch` epochs that are over, with their validation; `lossSum` is
 * the loss over the steps of the epoch that is under way.
 */
export const Position = z.strictObject({
  step: z.int().min(0),
  epoch: z.int().min(0),
  lossSum: z.number(),
  best: Best.optional(),
});
export type Position = z.infer<typeof Position>;

export interface TrainingState {
  position: Position;
  weights: Weights;
  optimizer: Weights;
}

const OPTIMIZER_PREFIX = 'optimizer.';

/** The file's content in pieces, which share the state's memory; equal states give equal bytes. */
export function encodeState({ position, weights, optimizer }: TrainingState): Buffer[] {
  const tensors = new Map(weights);
  for (const [name, value] of optimizer) tensors.set(OPTIMIZER_PREFIX + name, value);
  return encodeSafetensors(tensors, { fovea: canonicalize(position)! });
}

/** @throws SafetensorsError or ZodError if it is no such file */
export function decodeState(bytes: Uint8Array): TrainingState {
  const { tensors, metadata } = decodeSafetensors(bytes);
  const weights: Weights = new Map();
  const optimizer: Weights = new Map();
  for (const [name, value] of tensors) {
    if (name.startsWith(OPTIMIZER_PREFIX)) optimizer.set(name.slice(OPTIMIZER_PREFIX.length), value);
    else weights.set(name, value);
  }
  return { position: Position.parse(JSON.parse(metadata.fovea!)), weights, optimizer };
}

export function digestOf(pieces: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return `sha256:${hash.digest('hex')}`;
}
