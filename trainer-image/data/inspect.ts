/** One look at every file: each picture is decoded whole, once; what cannot be used is named with its reason. */
import { createHash } from 'node:crypto';
import { availableParallelism } from 'node:os';
import type { Colour } from '../contract.ts';
import { type Budget, createBudget, forEachConcurrently } from './concurrency.ts';
import { type PictureFormat, pictureFormat, pictureHeader } from './picture.ts';
import {
  channelsOf,
  checkPicture,
  decodePixels,
  PictureError,
  type PictureLimits,
  type PictureProblem,
} from './preprocess.ts';
import type { RefusedFile, SourceFile } from './source.ts';
import { type PixelSums, sumPixels } from './statistics.ts';

export interface Picture {
  file: SourceFile;
  className: string;
  format: PictureFormat;
  /** `sha256:<hex>` of the file. */
  digest: string;
  statistics: PixelSums;
}

export interface Quarantined {
  path: string;
  reason: PictureProblem | RefusedFile['reason'] | 'OutsideClass';
}

export interface Inspection {
  /** In the order of the files. */
  pictures: Picture[];
  quarantined: Quarantined[];
  /** Files outside the classes' folders that are no pictures, as a README. */
  ignored: string[];
}

export interface InspectionOptions {
  colour: Colour;
  limits: PictureLimits;
  classOf(path: string): string | undefined;
  signal: AbortSignal;
  onProgress(done: number, total: number): void;
  /** Why a file is set aside, in words. */
  onQuarantined(path: string, message: string): void;
}

/** Bytes of files, and of pixels, held at once, so that a few huge pictures do not exhaust the memory. */
const FILE_BYTES = 128 * 1024 * 1024;
const PIXEL_BYTES = 256 * 1024 * 1024;

export async function inspect(files: SourceFile[], options: InspectionOptions): Promise<Inspection> {
  const { colour, limits, signal } = options;
  // Two, taken in this order: whoever holds pixels waits for nothing more.
  const fileBudget = createBudget(FILE_BYTES);
  const pixelBudget = createBudget(PIXEL_BYTES);
  const pictures = new Array<Picture | undefined>(files.length);
  const quarantined: Quarantined[] = [];
  const ignored: string[] = [];
  let done = 0;

  const examine = async (file: SourceFile, i: number) => {
    const { path, sizeBytes } = file;
    const className = options.classOf(path);
    const release = await fileBudget.take(Math.min(sizeBytes, limits.maxBytes));
    try {
      if (sizeBytes > limits.maxBytes) {
        throw new PictureError('TooLarge', `${sizeBytes} bytes, more than the ${limits.maxBytes} allowed`);
      }
      const bytes = await file.load();
      if (className === undefined) {
        if (pictureFormat(bytes)) quarantined.push({ path, reason: 'OutsideClass' });
        else ignored.push(path);
        return;
      }
      const format = checkPicture(bytes, limits);
      const { width, height } = pictureHeader(bytes)!;
      const statistics = await withBudget(pixelBudget, width * height * channelsOf(colour), async () => {
        const { data, channels } = await decodePixels(bytes, colour, limits);
        return sumPixels(data, channels);
      });
      const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
      pictures[i] = { file, className, format, digest, statistics };
    } catch (error) {
      if (!(error instanceof PictureError)) throw error;
      if (className === undefined) {
        ignored.push(path);
        return;
      }
      quarantined.push({ path, reason: error.reason });
      options.onQuarantined(path, `${error.reason}: ${error.message}`);
    } finally {
      release();
    }
  };

  await forEachConcurrently(files.entries(), 4 * availableParallelism(), async ([i, file]) => {
    signal.throwIfAborted();
    await examine(file, i);
    options.onProgress(++done, files.length);
  });
  return { pictures: pictures.filter((picture) => picture !== undefined), quarantined, ignored };
}

async function withBudget<T>(budget: Budget, cost: number, work: () => Promise<T>): Promise<T> {
  const release = await budget.take(cost);
  try {
    return await work();
  } finally {
    release();
  }
}
