/**
 * How a picture becomes the network's input: the one implementation, used in training and in serving, so that the two cannot
 * differ. See `Preprocessing` in contract.ts for the steps.
 */
import sharp, { type Sharp } from 'sharp';
import { type Colour, ImageBounds, type Preprocessing } from '../contract.ts';

export type PictureReason = 'Empty' | 'TooLarge' | 'TooManyPixels' | 'UnsupportedFormat' | 'Truncated' | 'Unreadable';

/** A picture that cannot be used; `reason` is one word for reports and answers. */
export class PictureError extends Error {
  readonly reason: PictureReason;

  constructor(reason: PictureReason, message: string) {
    super(message);
    this.name = 'PictureError';
    this.reason = reason;
  }
}

export interface PictureLimits {
  maxPixels: number;
  maxBytes: number;
}

export const DEFAULT_LIMITS: PictureLimits = ImageBounds.parse({});

export function channelsOf(colour: Colour): 1 | 3 {
  return colour === 'Grey' ? 1 : 3;
}

/** The format by the first bytes; a name or content type may lie. */
export function formatOf(bytes: Uint8Array): 'jpeg' | 'png' | 'webp' | undefined {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 12));
  if (head.length >= 3 && head[0] === 0xff && head[1] === 0xd8 && head[2] === 0xff) return 'jpeg';
  if (head.length >= 8 && head.toString('latin1', 0, 8) === '\x89PNG\r\n\x1a\n') return 'png';
  if (head.length >= 12 && head.toString('latin1', 0, 4) === 'RIFF' && head.toString('latin1', 8, 12) === 'WEBP') {
    return 'webp';
  }
  return undefined;
}

/**
 * Decodes a JPEG, PNG or WebP to uint8 `[H, W, C]`.
 *
 * @throws PictureError if it is no such picture, is damaged, or is over a limit
 */
export async function decodePicture(
  bytes: Uint8Array,
  preprocessing: Pick<Preprocessing, 'colour' | 'height' | 'width'>,
  limits: PictureLimits = DEFAULT_LIMITS,
): Promise<Uint8Array> {
  const { colour, height, width } = preprocessing;
  const image = openPicture(bytes, limits)
    .rotate() // by the EXIF orientation
    .removeAlpha()
    .toColourspace(colour === 'Grey' ? 'b-w' : 'srgb')
    .resize(width, height, { fit: 'fill', kernel: 'lanczos3' })
    .raw();
  const { data, info } = await decoded(image, limits);
  if (info.channels !== channelsOf(colour)) {
    throw new PictureError('Unreadable', `decoded to ${info.channels} channels instead of ${channelsOf(colour)}`);
  }
  return data;
}

/** Decodes at native size to uint8 `[H, W, C]`: proof that the whole picture is readable, and what statistics are made of. */
export async function decodeNative(
  bytes: Uint8Array,
  colour: Colour,
  limits: PictureLimits = DEFAULT_LIMITS,
): Promise<{ data: Uint8Array; height: number; width: number }> {
  const image = openPicture(bytes, limits)
    .rotate()
    .removeAlpha()
    .toColourspace(colour === 'Grey' ? 'b-w' : 'srgb')
    .raw();
  const { data, info } = await decoded(image, limits);
  return { data, height: info.height, width: info.width };
}

function openPicture(bytes: Uint8Array, limits: PictureLimits): Sharp {
  if (bytes.length === 0) throw new PictureError('Empty', 'the file is empty');
  if (bytes.length > limits.maxBytes) {
    throw new PictureError('TooLarge', `${bytes.length} bytes; at most ${limits.maxBytes} are allowed`);
  }
  if (!formatOf(bytes)) throw new PictureError('UnsupportedFormat', 'neither JPEG, PNG nor WebP by its first bytes');
  // Any warning of the decoder means damaged data: a truncated JPEG would otherwise come out half grey.
  return sharp(bytes, { limitInputPixels: limits.maxPixels, failOn: 'warning', sequentialRead: true });
}

async function decoded(image: Sharp, limits: PictureLimits) {
  try {
    return await image.toBuffer({ resolveWithObject: true });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (/pixel limit/i.test(message)) {
      throw new PictureError('TooManyPixels', `more than ${limits.maxPixels} pixels`);
    }
    const truncated = /truncated|premature|end of (stream|file)|not enough|unexpected end|read error/i.test(message);
    throw new PictureError(truncated ? 'Truncated' : 'Unreadable', message.split('\n')[0]);
  }
}
