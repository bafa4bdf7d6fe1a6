/**
 * Tars, plain or gzipped, from strangers. Nothing is unpacked to a file: contents are read where they lie in the tar, so no entry
 * can escape, and links are refused by name.
 */
import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { extract, type Header } from 'tar-stream';
import { TrainerError, UserError } from '../errors.ts';
import { byPath, isClutter, type RefusedFile, type Source, type SourceContext, type SourceFile } from './source.ts';

export interface ArchiveLimits {
  maxEntries: number;
  /** Pictures hardly compress. What grows beyond this factor is made to fill a disk. */
  maxGrowth: number;
  /** Growth that is allowed in any case. */
  growthAllowanceBytes: number;
}

const LIMITS: ArchiveLimits = { maxEntries: 10_000_000, maxGrowth: 100, growthAllowanceBytes: 1024 ** 3 };
const MAX_PATH_BYTES = 4096;
const READ_BYTES = 1024 ** 2;
const BLOCK_BYTES = 512;

/** `name` is what messages call the tar. Throws UserError UnreadableArchive or ArchiveTooLarge; TrainerError ScratchFull. */
export async function openArchive(
  path: string,
  name: string,
  context: SourceContext,
  limits: ArchiveLimits = LIMITS,
): Promise<Source> {
  let tar = await open(path, 'r');
  try {
    if (await isGzipped(tar)) {
      const plain = await gunzip(tar, name, context, limits);
      await tar.close();
      tar = plain;
    }
    const listing = await scan(tar, name, context, limits);
    if (!(await hasEnd(tar))) throw new Error('its end is missing, so it was cut or is none');
    return { ...listing, packed: true, close: () => tar.close() };
  } catch (error) {
    await tar.close();
    if (error instanceof TrainerError || context.signal.aborted) throw error;
    throw new UserError('UnreadableArchive', `${name} is no tar that can be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** RFC 1952: 1f 8b. */
async function isGzipped(file: FileHandle): Promise<boolean> {
  const magic = Buffer.alloc(2);
  await file.read(magic, 0, 2, 0);
  return magic.readUInt16BE(0) === 0x1f8b;
}

/** A tar ends with blocks of zeros (POSIX.1-2024, pax, "ustar Interchange Format"). One cut between two entries is else a shorter tar. */
async function hasEnd(tar: FileHandle): Promise<boolean> {
  const { size } = await tar.stat();
  const block = Buffer.alloc(BLOCK_BYTES, 1);
  await tar.read(block, 0, BLOCK_BYTES, Math.max(0, size - BLOCK_BYTES));
  return block.every((byte) => byte === 0);
}

/** The tar as a scratch file. */
async function gunzip(
  packed: FileHandle,
  name: string,
  { scratch, signal, onProgress }: SourceContext,
  { maxGrowth, growthAllowanceBytes }: ArchiveLimits,
) {
  const path = join(scratch, `unpacked-${randomUUID()}`);
  const plain = await open(path, 'wx+');
  // Without its name it goes with the process, however that ends.
  await rm(path);
  const packedBytes = (await packed.stat()).size;
  const most = packedBytes * maxGrowth + growthAllowanceBytes;
  let written = 0;
  const raw = createReadStream('', { fd: packed, start: 0, autoClose: false, highWaterMark: READ_BYTES });
  try {
    await pipeline(
      raw,
      createGunzip({ chunkSize: READ_BYTES }),
      async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of chunks) {
          written += chunk.length;
          if (written > most) {
            throw new UserError(
              'ArchiveTooLarge',
              `${name} grows from ${packedBytes} to more than ${most} bytes when unpacked: pictures hardly compress, so this is refused`,
            );
          }
          await plain.appendFile(chunk);
          onProgress('unpacking', (100 * raw.bytesRead) / packedBytes);
        }
      },
      { signal },
    );
    return plain;
  } catch (error) {
    await plain.close();
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    throw new TrainerError('ScratchFull', `no space left in ${scratch} to unpack ${name}: enlarge the scratch volume`, {
      cause: error,
    });
  }
}

async function scan(
  tar: FileHandle,
  name: string,
  { signal, onProgress }: SourceContext,
  { maxEntries }: ArchiveLimits,
) {
  const files = new Map<string, SourceFile>();
  const folders = new Set<string>();
  const refused: RefusedFile[] = [];
  const ignored: string[] = [];
  const size = (await tar.stat()).size;
  const archive = extract();
  // Its outcome is the archive's: a stream that fails destroys the other with its error.
  const feeding = pipeline(
    createReadStream('', { fd: tar, start: 0, autoClose: false, highWaterMark: READ_BYTES }),
    archive as unknown as NodeJS.WritableStream,
    { signal },
  ).catch(() => {});
  let entries = 0;
  for await (const entry of archive) {
    const { header } = entry;
    // Where the content begins; the entry's own `offset` is that of its header.
    const offset = (header as typeof header & { byteOffset: number }).byteOffset;
    entries += 1;
    if (entries > maxEntries) throw new UserError('ArchiveTooLarge', `${name} has more than ${maxEntries} entries`);
    onProgress('listing', (100 * offset) / size);
    const place = placeOf(header);
    if (place.type === 'refused') refused.push({ path: place.path, reason: place.reason });
    else if (isClutter(place.path)) ignored.push(place.path);
    else if (place.type === 'folder') addFolders(folders, place.path);
    else if (files.has(place.path)) refused.push({ path: place.path, reason: 'DuplicatePath' });
    else {
      addFolders(folders, place.path.split('/').slice(0, -1).join('/'));
      const sizeBytes = header.size;
      files.set(place.path, { path: place.path, sizeBytes, load: () => read(tar, offset, sizeBytes) });
    }
    entry.resume();
  }
  await feeding;
  signal.throwIfAborted();
  return {
    files: [...files.values()].sort(byPath),
    folders: [...folders].sort(),
    refused: refused.sort(byPath),
    ignored: ignored.sort(),
  };
}

type Place = { type: 'file' | 'folder'; path: string } | ({ type: 'refused' } & RefusedFile);

/** What an entry is, and where it lies below the root. */
function placeOf({ name, type }: Header): Place {
  if (Buffer.byteLength(name) > MAX_PATH_BYTES || name.includes('\0')) {
    return { type: 'refused', path: name.slice(0, 200).replaceAll('\0', '�'), reason: 'UnsafePath' };
  }
  const segments = name.split('/').filter((segment) => segment !== '' && segment !== '.');
  if (name.startsWith('/') || segments.includes('..')) return { type: 'refused', path: name, reason: 'UnsafePath' };
  const path = segments.join('/');
  // What a name that is no UTF-8 was decoded to.
  if (name.includes('�')) return { type: 'refused', path, reason: 'UnreadableName' };
  switch (type) {
    case 'file':
    case 'contiguous-file':
      return path === '' ? { type: 'refused', path: name, reason: 'UnsafePath' } : { type: 'file', path };
    case 'directory':
      return { type: 'folder', path };
    case 'link':
    case 'symlink':
      return { type: 'refused', path, reason: 'Link' };
    default:
      return { type: 'refused', path, reason: 'NotAFile' };
  }
}

function addFolders(folders: Set<string>, path: string): void {
  for (let at = path; at !== '' && !folders.has(at); at = at.split('/').slice(0, -1).join('/')) folders.add(at);
}

async function read(tar: FileHandle, start: number, size: number): Promise<Buffer> {
  const bytes = Buffer.alloc(size);
  for (let got = 0; got < size; ) {
    const { bytesRead } = await tar.read(bytes, got, size - got, start + got);
    if (bytesRead === 0) throw new Error('the tar ended early: it was changed while in use');
    got += bytesRead;
  }
  return bytes;
}
