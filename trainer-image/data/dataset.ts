/** The reading side of a packed dataset: its index, its samples in order, and a split decoded once for random access. */
import { createHash, randomUUID } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { DatasetIndex, type Preprocessing, type SplitName } from '../contract.ts';
import { TrainerError, UserError } from '../errors.ts';
import type { Store } from '../store.ts';
import { forEachConcurrently } from './concurrency.ts';
import { channelsOf, decodePicture, type PictureLimits } from './preprocess.ts';
import { readShard, type Sample } from './shards.ts';

export interface Dataset {
  digest: string;
  index: DatasetIndex;
  /** Every sample of a split, in its order. */
  samples(split: SplitName): AsyncGenerator<Sample>;
}

/** A split as pixels, for batches in any order. */
export interface DecodedSplit {
  /** Number of samples. */
  count: number;
  height: number;
  width: number;
  channels: 1 | 3;
  /** height × width × channels */
  recordBytes: number;
  /** Label indices, `[count]`. */
  labels: Int32Array;
  /** Paths in the source, `[count]`. */
  paths: string[];
  /** Copies the samples at `indices` into `into`, uint8 `[indices.length, height, width, channels]`. */
  read(indices: ArrayLike<number>, into: Uint8Array): void;
  close(): void;
}

const MEMORY_BYTES = 512 * 1024 * 1024;
/** Decoded at once and written at once. */
const CHUNK_BYTES = 16 * 1024 * 1024;
const CHUNK_SAMPLES = 1024;

/** What was packed has passed its own limits already; these are the largest that can be asked for. */
const LIMITS: PictureLimits = { maxPixels: 1_000_000_000, maxBytes: 1_073_741_824 };

/** Throws UserError NotADataset if the blob is something else; TrainerError as the store does. */
export async function openDataset(store: Store, digest: string): Promise<Dataset> {
  const text = (await store.read(digest)).toString('utf8');
  let index: DatasetIndex;
  try {
    index = DatasetIndex.parse(JSON.parse(text));
  } catch (error) {
    throw new UserError('NotADataset', `blob ${digest} is no dataset that \`prepare\` has made`, { cause: error });
  }
  return {
    digest,
    index,
    async *samples(split) {
      for (const shard of index.splits[split].shards) yield* readShard(await store.read(shard.digest));
    },
  };
}

/**
 * Decodes a split as `preprocessing` says into a file in `scratch`, or finds the one that an earlier process left there.
 * Throws TrainerError ScratchFull or DatasetDamaged.
 */
export async function decodeSplit(
  dataset: Dataset,
  split: SplitName,
  preprocessing: Pick<Preprocessing, 'colour' | 'height' | 'width'>,
  options: {
    scratch: string;
    signal?: AbortSignal;
    onProgress?: (done: number, total: number) => void;
    /** A decoded split up to this size is held in memory. Default 512 MiB. */
    memoryBytes?: number;
  },
): Promise<DecodedSplit> {
  const { colour, height, width } = preprocessing;
  const channels = channelsOf(colour);
  const recordBytes = height * width * channels;
  const count = dataset.index.splits[split].samples;
  const labels = new Int32Array(count);
  const paths: string[] = [];
  // Another version of the decoder may give other pixels.
  const identity = JSON.stringify([dataset.digest, split, colour, height, width, sharp.versions]);
  const path = join(
    options.scratch,
    `decoded-${createHash('sha256').update(identity).digest('hex').slice(0, 32)}-${split}.u8`,
  );
  const known = (await stat(path).catch(() => undefined))?.size === count * recordBytes;
  const writer = known ? undefined : await createWriter(path);
  const chunkSamples = Math.max(1, Math.min(CHUNK_SAMPLES, Math.floor(CHUNK_BYTES / recordBytes)));
  let chunk: Sample[] = [];

  const decodeChunk = async () => {
    if (writer) {
      const pixels = new Uint8Array(chunk.length * recordBytes);
      await forEachConcurrently(chunk.entries(), 2 * availableParallelism(), async ([i, sample]) => {
        options.signal?.throwIfAborted();
        pixels.set(await decodeSample(sample, preprocessing), i * recordBytes);
      });
      await writer.append(pixels);
      options.onProgress?.(paths.length, count);
    }
    chunk = [];
  };

  try {
    for await (const sample of dataset.samples(split)) {
      options.signal?.throwIfAborted();
      if (paths.length === count) throw damaged(dataset, split, 'more');
      labels[paths.length] = sample.label;
      paths.push(sample.path);
      chunk.push(sample);
      if (chunk.length === chunkSamples) await decodeChunk();
    }
    if (paths.length < count) throw damaged(dataset, split, 'fewer');
    await decodeChunk();
    await writer?.finish();
  } catch (error) {
    await writer?.abandon();
    throw error;
  }
  options.onProgress?.(count, count);
  const inMemory = count * recordBytes <= (options.memoryBytes ?? MEMORY_BYTES);
  const records = inMemory ? holdRecords(path, recordBytes) : openRecords(path, recordBytes);
  return { count, height, width, channels, recordBytes, labels, paths, ...records };
}

function damaged(dataset: Dataset, split: string, how: string): TrainerError {
  return new TrainerError(
    'DatasetDamaged',
    `the ${split} split of ${dataset.digest} has ${how} samples than its index says`,
  );
}

async function decodeSample(
  { path, bytes }: Sample,
  preprocessing: Pick<Preprocessing, 'colour' | 'height' | 'width'>,
): Promise<Uint8Array> {
  try {
    return await decodePicture(bytes, preprocessing, LIMITS);
  } catch (error) {
    throw new TrainerError('DatasetDamaged', `${path} was packed but cannot be decoded: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Random access to fixed-size records, in memory. */
function holdRecords(path: string, recordBytes: number): Pick<DecodedSplit, 'read' | 'close'> {
  const records = readFileSync(path);
  return {
    read(indices, into) {
      for (let i = 0; i < indices.length; i++) {
        const start = indices[i]! * recordBytes;
        into.set(records.subarray(start, start + recordBytes), i * recordBytes);
      }
    },
    close() {},
  };
}

/** Random access to fixed-size records, from the file and the system's page cache. */
function openRecords(path: string, recordBytes: number): Pick<DecodedSplit, 'read' | 'close'> {
  const file = openSync(path, 'r');
  return {
    read(indices, into) {
      for (let i = 0; i < indices.length; i++) {
        for (let got = 0; got < recordBytes; ) {
          const bytes = readSync(file, into, i * recordBytes + got, recordBytes - got, indices[i]! * recordBytes + got);
          if (bytes === 0) throw new TrainerError('ScratchDamaged', `${path} ended early: it was cut while in use`);
          got += bytes;
        }
      }
    },
    close() {
      closeSync(file);
    },
  };
}

/** A scratch file that has its name only once it is whole. Scratch need not outlive the machine, so nothing is synced. */
async function createWriter(path: string) {
  const aside = `${path}.${randomUUID()}.aside`;
  const file = await open(aside, 'wx');
  return {
    async append(bytes: Uint8Array) {
      try {
        await file.appendFile(bytes);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        throw new TrainerError(
          'ScratchFull',
          `no space left for decoded pictures at ${path}: enlarge the scratch volume`,
          {
            cause: error,
          },
        );
      }
    },
    async finish() {
      await file.close();
      await rename(aside, path);
    },
    async abandon() {
      await file.close().catch(() => {});
      await rm(aside, { force: true });
    },
  };
}
