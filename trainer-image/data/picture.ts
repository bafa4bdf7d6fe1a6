/** What a picture file says of itself before anything decodes it: format and size, from its first bytes and never its name. */

export type PictureFormat = 'jpeg' | 'png' | 'webp';

export interface PictureHeader {
  format: PictureFormat;
  width: number;
  height: number;
}

const ascii = (bytes: Buffer, start: number, end: number) => bytes.toString('latin1', start, end);

/** The format by its magic bytes; undefined for anything but JPEG, PNG and WebP. */
export function pictureFormat(bytes: Buffer): PictureFormat | undefined {
  if (bytes.length >= 3 && bytes.readUIntBE(0, 3) === 0xffd8ff) return 'jpeg';
  if (ascii(bytes, 0, 8) === '\x89PNG\r\n\x1a\n') return 'png';
  if (ascii(bytes, 0, 4) === 'RIFF' && ascii(bytes, 8, 12) === 'WEBP') return 'webp';
  return undefined;
}

/** Format and size as stored (before any EXIF rotation); undefined if the header is not whole. */
export function pictureHeader(bytes: Buffer): PictureHeader | undefined {
  const format = pictureFormat(bytes);
  const size = format === 'jpeg' ? jpegSize(bytes) : format === 'png' ? pngSize(bytes) : webpSize(bytes);
  return format && size && size.width > 0 && size.height > 0 ? { format, ...size } : undefined;
}

type Size = Pick<PictureHeader, 'width' | 'height'>;

/** IHDR is the first chunk (PNG specification, section 5.6). */
function pngSize(bytes: Buffer): Size | undefined {
  if (bytes.length < 24 || ascii(bytes, 12, 16) !== 'IHDR') return undefined;
  return { width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) };
}

/** The first start-of-frame segment (ITU-T T.81, B.2.2): C0..CF without C4 (tables), C8 (reserved) and CC (arithmetic coding). */
function jpegSize(bytes: Buffer): Size | undefined {
  let at = 2;
  while (at + 9 <= bytes.length) {
    if (bytes[at] !== 0xff) return undefined;
    const marker = bytes[at + 1]!;
    if (marker === 0xff) {
      at += 1; // fill byte
    } else if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd7)) {
      at += 2; // markers without a segment
    } else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      return { height: bytes.readUInt16BE(at + 5), width: bytes.readUInt16BE(at + 7) };
    } else {
      at += 2 + bytes.readUInt16BE(at + 2);
    }
  }
  return undefined;
}

/** RFC 9649: the canvas of VP8X, else the frame of VP8 (lossy) or VP8L (lossless). */
function webpSize(bytes: Buffer): Size | undefined {
  if (bytes.length < 30) return undefined;
  switch (ascii(bytes, 12, 16)) {
    case 'VP8X':
      return { width: bytes.readUIntLE(24, 3) + 1, height: bytes.readUIntLE(27, 3) + 1 };
    case 'VP8L': {
      const bits = bytes.readUInt32LE(21);
      return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
    }
    case 'VP8 ':
      return { width: bytes.readUInt16LE(26) & 0x3fff, height: bytes.readUInt16LE(28) & 0x3fff };
    default:
      return undefined;
  }
}

/** Whether the file ends before its format says that it does. */
export function isTruncated(bytes: Buffer, format: PictureFormat): boolean {
  switch (format) {
    case 'jpeg':
      return bytes.lastIndexOf('\xff\xd9', undefined, 'latin1') < 0;
    case 'png':
      return bytes.lastIndexOf('IEND', undefined, 'latin1') < 0;
    case 'webp':
      return bytes.length < 8 + bytes.readUInt32LE(4);
  }
}
