/**
 * Safetensors files (https://github.com/huggingface/safetensors): eight bytes with the header's length, the header as JSON, the tensors.
 * Float32 only. A file comes from elsewhere as well as from us, so nothing in its header is believed before it was checked.
 */
import { endianness } from 'node:os';
import { sizeOf } from '../models/graph.ts';
import type { Weights } from '../models/weights.ts';

/** The format's own limit. */
const MAX_HEADER_BYTES = 100_000_000;
const FLOAT_BYTES = 4;

if (endianness() !== 'LE') throw new Error('safetensors are little-endian, and so must be the machine');

/** The file is damaged, cut off or of another kind; the message says where. */
export class SafetensorsError extends Error {}

export interface SafetensorsFile {
  tensors: Weights;
  /** The header's `__metadata__`. */
  metadata: Record<string, string>;
}

/** The file in pieces, the tensors in the map's order. The pieces share the tensors' memory. */
export function encodeSafetensors(tensors: Weights, metadata: Readonly<Record<string, string>>): Buffer[] {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let end = 0;
  for (const [name, { shape, data }] of tensors) {
    if (data.length !== sizeOf(shape)) throw new Error(`${name}: ${data.length} values do not fill [${shape}]`);
    const start = end;
    end += data.length * FLOAT_BYTES;
    header[name] = { dtype: 'F32', shape, data_offsets: [start, end] };
  }
  const json = Buffer.from(JSON.stringify(header));
  // Spaces behind the header align the tensors to eight bytes, as the reference implementation does.
  const padded = Buffer.alloc(Math.ceil(json.length / 8) * 8, ' ');
  json.copy(padded);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const values = [...tensors.values()].map(({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  return [length, padded, ...values];
}

/**
 * All tensors of a file, copied, with its metadata.
 * @throws SafetensorsError
 */
export function decodeSafetensors(file: Uint8Array): SafetensorsFile {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  const header = parseHeader(bytes);
  const body = bytes.subarray(header.end);
  const tensors: Weights = new Map();
  const spans: { name: string; start: number; end: number }[] = [];
  for (const [name, entry] of Object.entries(header.entries)) {
    const { shape, start, end } = parseEntry(name, entry, body.length);
    spans.push({ name, start, end });
    const data = new Float32Array((end - start) / FLOAT_BYTES);
    Buffer.from(data.buffer).set(body.subarray(start, end));
    tensors.set(name, { shape, data });
  }
  // Each byte belongs to one tensor: no overlap, no hole, nothing behind.
  spans.sort((a, b) => a.start - b.start || a.end - b.end);
  let reached = 0;
  for (const { name, start, end } of spans) {
    if (start !== reached)
      throw new SafetensorsError(`tensor ${name} starts at ${start}, the one before ends at ${reached}`);
    reached = end;
  }
  if (reached !== body.length) {
    throw new SafetensorsError(`the tensors end at ${reached} and the file has ${body.length} bytes for them`);
  }
  return { tensors, metadata: header.metadata };
}

function parseHeader(bytes: Buffer): {
  entries: Record<string, unknown>;
  metadata: Record<string, string>;
  end: number;
} {
  if (bytes.length < 8) throw new SafetensorsError(`${bytes.length} bytes are no safetensors file`);
  const length = bytes.readBigUInt64LE();
  if (length > MAX_HEADER_BYTES)
    throw new SafetensorsError(`its header would have ${length} bytes, above ${MAX_HEADER_BYTES}`);
  const end = 8 + Number(length);
  if (end > bytes.length) {
    throw new SafetensorsError(`it is cut off: ${bytes.length} bytes, and the header alone ends at ${end}`);
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(8, end)));
  } catch (cause) {
    throw new SafetensorsError(`its header is not JSON: ${(cause as Error).message.slice(0, 100)}`, { cause });
  }
  if (!isRecord(parsed)) throw new SafetensorsError('its header is no JSON object');
  const { __metadata__: metadata = {}, ...entries } = parsed;
  if (!isRecord(metadata) || !Object.values(metadata).every((value) => typeof value === 'string')) {
    throw new SafetensorsError('its __metadata__ is no map of strings');
  }
  return { entries, metadata: metadata as Record<string, string>, end };
}

function parseEntry(name: string, entry: unknown, available: number): { shape: number[]; start: number; end: number } {
  const where = `tensor ${name.slice(0, 100)}`;
  if (!isRecord(entry)) throw new SafetensorsError(`${where} has no description`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (dtype !== 'F32') throw new SafetensorsError(`${where} is ${String(dtype).slice(0, 20)}; only F32 is read`);
  if (!isNaturals(shape)) throw new SafetensorsError(`${where} has no proper shape`);
  if (!isNaturals(offsets) || offsets.length !== 2) throw new SafetensorsError(`${where} has no proper data_offsets`);
  const [start, end] = offsets as [number, number];
  if (start > end || end > available) {
    throw new SafetensorsError(`${where} lies at ${start} to ${end}, and there are ${available} bytes`);
  }
  if (sizeOf(shape) * FLOAT_BYTES !== end - start) {
    throw new SafetensorsError(`${where} of shape [${shape}] cannot have ${end - start} bytes`);
  }
  return { shape, start, end };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isNaturals(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= 16 && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}
