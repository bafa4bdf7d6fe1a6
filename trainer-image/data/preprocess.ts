/**
 * The one way from a picture's bytes to the network's input, in training and in serving alike (contract.ts `Preprocessing`):
 * decode, apply the EXIF orientation, convert to the colour, resize, uint8 `[H, W, C]`. Normalization is the network's own.
 *
 * Colour follows libvips: embedded profiles are honoured, transparency is dropped (not blended), 16 bits become 8, and grey is
 * luminance. Of an animation, the first frame counts.
 */
import sharp, { type Sharp } from 'sharp';
import { type Colour, ImageBounds, type Preprocessing } from '../contract.ts';
import { isTruncated, type PictureFormat, pictureFormat, pictureHeader } from './picture.ts';

export interface PictureLimits {
  maxPixels: number;
  maxBytes: number;
}

export const DEFAULT_LIMITS: PictureLimits = ImageBounds.parse({});

export type PictureProblem = 'Empty' | 'TooLarge' | 'TooManyPixels' | 'UnsupportedFormat' | 'Truncated' | 'Unreadable';

/** Bytes that are no usable picture. */
export class PictureError extends Error {
  readonly reason: PictureProblem;

  constructor(reason: PictureProblem, message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'PictureError';
    this.reason = reason;
  }
}

/** Decoded pixels, `[height, width, channels]`. */
export interface Pixels {
  data: Buffer;
  width: number;
  height: number;
  channels: number;
}

// Pictures are decoded side by side, each on one thread, and none is decoded twice.
sharp.concurrency(1);
sharp.cache(false);
// libvips knows many more formats than are checked here, and some of their decoders are easier to attack.
sharp.block({ operation: ['VipsForeignLoad'] });
sharp.unblock({
  operation: ['VipsForeignLoadJpegBuffer', 'VipsForeignLoadPngBuffer', 'VipsForeignLoadWebpBuffer'],
});

export function channelsOf(colour: Colour): 1 | 3 {
  return colour === 'RGB' ? 3 : 1;
}

/** The network's input of a picture, `[height, width, channels]`. Throws PictureError. */
export async function decodePicture(
  bytes: Uint8Array,
  { colour, height, width }: Pick<Preprocessing, 'colour' | 'height' | 'width'>,
  limits: PictureLimits = DEFAULT_LIMITS,
): Promise<Uint8Array> {
  const { data } = await decode(bytes, colour, limits, (picture) =>
    picture.resize(width, height, { fit: 'fill', kernel: 'lanczos3' }),
  );
  return data;
}

/** A picture's own pixels, upright and in `colour`, at its own size. Throws PictureError. */
export function decodePixels(bytes: Uint8Array, colour: Colour, limits: PictureLimits): Promise<Pixels> {
  return decode(bytes, colour, limits, (picture) => picture);
}

async function decode(
  input: Uint8Array,
  colour: Colour,
  limits: PictureLimits,
  transform: (picture: Sharp) => Sharp,
): Promise<Pixels> {
  const bytes = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
  const format = checkPicture(bytes, limits);
  // A warning is damage too: a JPEG with overwritten parts decodes to garbage with no more than that.
  const upright = sharp(bytes, { failOn: 'warning', limitInputPixels: limits.maxPixels }).autoOrient();
  const coloured = upright.removeAlpha().toColourspace(colour === 'RGB' ? 'srgb' : 'b-w');
  try {
    const { data, info } = await transform(coloured).raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
    return { data, width: info.width, height: info.height, channels: info.channels };
  } catch (error) {
    const said = (error as Error).message.split('\n')[0];
    throw isTruncated(bytes, format)
      ? new PictureError('Truncated', `the ${format} file ends early (${said})`, error)
      : new PictureError('Unreadable', `the ${format} file cannot be decoded (${said})`, error);
  }
}

/** What can be said before decoding. Throws PictureError. */
export function checkPicture(bytes: Buffer, limits: PictureLimits): PictureFormat {
  if (bytes.length === 0) throw new PictureError('Empty', 'the file is empty');
  if (bytes.length > limits.maxBytes) {
    throw new PictureError('TooLarge', `${bytes.length} bytes, more than the ${limits.maxBytes} allowed`);
  }
  const format = pictureFormat(bytes);
  if (!format) throw new PictureError('UnsupportedFormat', 'neither JPEG, PNG nor WebP by its first bytes');
  const header = pictureHeader(bytes);
  if (!header) {
    throw isTruncated(bytes, format)
      ? new PictureError('Truncated', `the ${format} file ends within its header`)
      : new PictureError('Unreadable', `the ${format} file's header cannot be read`);
  }
  if (header.width * header.height > limits.maxPixels) {
    throw new PictureError(
      'TooManyPixels',
      `${header.width} × ${header.height} pixels, more than the ${limits.maxPixels} allowed`,
    );
  }
  return format;
}
