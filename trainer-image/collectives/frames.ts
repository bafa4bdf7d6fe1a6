/**
 * What the ranks of a ring say to each other once they have met: frames of a header and a payload, in an order that both ends know
 * beforehand. A header that is not the expected one is never acted on. Pure.
 */

/** Bytes of a header: magic, kind, operation, step, offset, length (little endian). */
const HEADER_BYTES = 24;
/** Most bytes of a payload. Smaller pieces travel round the ring sooner, larger ones cost fewer calls. */
export const PIECE_BYTES = 256 * 1024;
const MAGIC = 0x46_4f_56_52;

export const KIND = { HEARTBEAT: 1, REDUCE: 2, GATHER: 3, BROADCAST: 4, GOODBYE: 5, BROKEN: 6 } as const;
export type Kind = (typeof KIND)[keyof typeof KIND];

/** Frames that have no payload, and belong to no operation. */
export const isBare = (kind: Kind): boolean => kind === KIND.HEARTBEAT || kind === KIND.GOODBYE || kind === KIND.BROKEN;

export interface Header {
  kind: Kind;
  /** Number of the operation in its ring, from 1; of a goodbye the last one that is done. */
  operation: number;
  /** Step of the operation, from 0; of a broken ring the rank whose fault it is. */
  step: number;
  /** Where the payload belongs, in bytes. */
  offset: number;
  /** Bytes of the payload that follows. */
  length: number;
}

/** A frame without a payload. */
export function encodeBare(kind: Kind, { operation = 0, step = 0 } = {}): Buffer {
  return encodeHeader({ kind, operation, step, offset: 0, length: 0 });
}

export function encodeHeader({ kind, operation, step, offset, length }: Header): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt16LE(kind, 4);
  bytes.writeUInt16LE(step, 6);
  bytes.writeUInt32LE(operation, 8);
  bytes.writeUInt32LE(length, 12);
  bytes.writeDoubleLE(offset, 16);
  return bytes;
}

/** @throws Error if these are no header, or one of a payload that is too long */
function decodeHeader(bytes: Buffer): Header {
  if (bytes.readUInt32LE(0) !== MAGIC) throw new Error('sent what is no frame of a ring');
  const kind = bytes.readUInt16LE(4) as Kind;
  if (!Object.values(KIND).includes(kind)) throw new Error(`sent a frame of unknown kind ${kind}`);
  const length = bytes.readUInt32LE(12);
  if (length > PIECE_BYTES) throw new Error(`sent a frame of ${length} bytes, of at most ${PIECE_BYTES}`);
  const header = {
    kind,
    step: bytes.readUInt16LE(6),
    operation: bytes.readUInt32LE(8),
    length,
    offset: bytes.readDoubleLE(16),
  };
  if (isBare(kind) && length !== 0) throw new Error(`sent a frame of kind ${kind} with ${length} bytes`);
  return header;
}

/** Puts the bytes of one connection together into frames. */
export interface FrameReader {
  /**
   * Takes the bytes that came.
   * @returns the bytes that were not taken, because `accept` was not ready for their frame; give them again later
   * @throws Error of `decodeHeader` or `accept`
   */
  take(bytes: Buffer): Buffer | undefined;
}

/** Where a payload goes, and what to do when it is there. */
export interface Payload {
  /** As long as the frame says. */
  target: Uint8Array;
  done: () => void;
}

/** `accept` says where the payload of a header goes; undefined: not now. */
export function createFrameReader(accept: (header: Header) => Payload | undefined): FrameReader {
  const head = Buffer.alloc(HEADER_BYTES);
  let headFilled = 0;
  let payload: Payload | undefined;
  let filled = 0;
  return {
    take(bytes) {
      let at = 0;
      for (;;) {
        if (!payload) {
          const missing = Math.min(HEADER_BYTES - headFilled, bytes.length - at);
          bytes.copy(head, headFilled, at, at + missing);
          headFilled += missing;
          at += missing;
          if (headFilled < HEADER_BYTES) return undefined;
          payload = accept(decodeHeader(head));
          // The header is kept, so that with the next call it is asked for again.
          if (!payload) return bytes.subarray(at);
          headFilled = 0;
          filled = 0;
        }
        const part = Math.min(payload.target.length - filled, bytes.length - at);
        payload.target.set(bytes.subarray(at, at + part), filled);
        filled += part;
        at += part;
        if (filled < payload.target.length) return undefined;
        const { done } = payload;
        payload = undefined;
        done();
      }
    },
  };
}

/** Elements of chunk `index` of `length` elements that `world` ranks divide among them. */
export function chunk(length: number, world: number, index: number): { start: number; end: number } {
  const of = ((index % world) + world) % world;
  return { start: Math.floor((of * length) / world), end: Math.floor(((of + 1) * length) / world) };
}

/** A chunk in pieces that fit a frame, in elements of `elementBytes`. */
export function* pieces(start: number, end: number, elementBytes = 1): Generator<{ start: number; end: number }> {
  const most = PIECE_BYTES / elementBytes;
  for (let at = start; at < end; at += most) yield { start: at, end: Math.min(end, at + most) };
}
