/**
 * What an exported model says of itself, in the ONNX file's `metadata_props`: enough to feed it pictures and to name its
 * answers, so that the file alone can be served, and where it comes from.
 */
import { z } from 'zod';
import { Digest, Metric, type ModelCard, Preprocessing } from '../contract.ts';

const CLASSES = 'fovea.classes';
const PREPROCESSING = 'fovea.preprocessing';

/** What a server needs to know. */
export interface ServingContract {
  preprocessing: Preprocessing;
  /** Class names in the order of the logits. */
  classes: string[];
}

/** @param source Digest of the safetensors model that was exported. */
export function writeMetadata(card: ModelCard, source: string): Record<string, string> {
  return {
    [PREPROCESSING]: JSON.stringify(card.preprocessing),
    [CLASSES]: JSON.stringify(card.classes),
    'fovea.model': JSON.stringify(card.model),
    'fovea.source': Digest.parse(source),
    'fovea.dataset': card.dataset,
    'fovea.epoch': String(card.epoch),
    // As measured in training: what verification measures can only be known of a file that is finished.
    'fovea.metrics': JSON.stringify(z.array(Metric).parse(card.metrics)),
  };
}

/** @throws RangeError that names the missing or wrong key. */
export function readMetadata(metadata: Record<string, string>): ServingContract {
  return {
    preprocessing: parse(metadata, PREPROCESSING, Preprocessing),
    classes: parse(metadata, CLASSES, z.array(z.string()).min(1)),
  };
}

function parse<T>(metadata: Record<string, string>, key: string, schema: z.ZodType<T>): T {
  const text = metadata[key];
  if (text === undefined) {
    throw new RangeError(`its metadata has no ${key}, which says how a picture becomes its input and what it answers`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new RangeError(`its metadata ${key} is not JSON`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new RangeError(`its metadata ${key} is wrong: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}
