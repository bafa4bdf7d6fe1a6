/** Validation: each worker a share of the split, the sums over all. */
import type { Collective } from '../collectives/index.ts';
import type { Metric } from '../contract.ts';
import type { DecodedSplit } from '../data/dataset.ts';
import type { TrainingEngine } from '../engine/training.ts';
import { shareOf } from './exchange.ts';

/** Samples of one batch. */
const BATCH = 128;

/** Accuracy and mean loss on a split, with the running statistics; nothing if it is empty. The same numbers at every rank. */
export async function validate(
  engine: TrainingEngine,
  split: DecodedSplit,
  ring: Collective | undefined,
): Promise<Metric[]> {
  if (split.count === 0) return [];
  const { start, end } = shareOf(split.count, ring?.rank ?? 0, ring?.world ?? 1);
  const own = new Float64Array(2);
  for (let at = start; at < end; at += BATCH) {
    const indices = Int32Array.from({ length: Math.min(BATCH, end - at) }, (_, i) => at + i);
    const pixels = new Uint8Array(indices.length * split.recordBytes);
    split.read(indices, pixels);
    const batch = engine.evaluate(pixels, split.labels.slice(at, at + indices.length));
    own[0]! += batch.loss;
    own[1]! += batch.correct;
  }
  const parts = ring ? await ring.allGather(new Uint8Array(own.buffer)) : [new Uint8Array(own.buffer)];
  let [loss, correct] = [0, 0];
  for (const part of parts) {
    const sums = new Float64Array(new Uint8Array(part).buffer);
    loss += sums[0]!;
    correct += sums[1]!;
  }
  return [
    { name: 'ValidationAccuracy', value: correct / split.count },
    { name: 'ValidationLoss', value: loss / split.count },
  ];
}

/** What makes an epoch the best; without a validation split, the latest is. */
export function accuracyOf(metrics: readonly Metric[]): number {
  return metrics.find((m) => m.name === 'ValidationAccuracy')?.value ?? 0;
}
