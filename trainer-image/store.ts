/**
 * The content-addressed store: `blobs/sha256/<hex>` holds content under its own digest, `runs/<run>/` what a run keeps while it
 * lasts. Everything is written aside in the same file system, digested while it is written, synced and renamed, so a process may
 * be killed anywhere; a blob is read only after its content was held against its digest.
 */
import { createHash, randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { type Artifact, blobPath, Digest } from './contract.ts';
import { TrainerError, UserError } from './errors.ts';

export interface Blob {
  /** `sha256:<hex>` */
  digest: string;
  sizeBytes: number;
}

export interface Store {
  root: string;
  putBytes(bytes: Uint8Array | string): Promise<Blob>;
  /** The file is copied; it stays where it is. */
  putFile(path: string): Promise<Blob>;
  putStream(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<Blob>;
  /** The whole blob, verified. Throws TrainerError BlobMissing or BlobDamaged. */
  read(digest: string): Promise<Buffer>;
  /** The path of a blob whose content was verified. Throws as `read`. */
  path(digest: string): Promise<string>;
  /** `<root>/runs/<run>`, made if absent. */
  runFolder(run: string): Promise<string>;
}

/** Files left aside by a process that was killed are removed once they are this old. */
const ABANDONED_MILLISECONDS = 24 * 3600 * 1000;

/** Bytes read or written at once. */
const PIECE_BYTES = 1024 * 1024;

/** Without the claim's name, which a pod does not know: the operator puts it in. */
export function uriOf(digest: string): string {
  return `store://${blobPath(digest)}`;
}

export function artifactOf(blob: Blob): Artifact {
  return { uri: uriOf(blob.digest), digest: blob.digest, sizeBytes: blob.sizeBytes };
}

/** Opens the store at `root` and makes its folders. Several processes may have one store open. */
export async function openStore(root: string): Promise<Store> {
  const base = resolve(root);
  const aside = join(base, 'aside');
  const blobs = join(base, 'blobs', 'sha256');
  /** Digests whose content this process has seen on disk. */
  const verified = new Set<string>();

  await explained(base, async () => {
    await mkdir(blobs, { recursive: true });
    await mkdir(aside, { recursive: true });
    await removeAbandoned(aside);
  });

  const blobFile = (digest: string) => {
    if (!Digest.safeParse(digest).success) {
      throw new UserError('InvalidDigest', `"${digest}" is no digest: want sha256: and 64 hexadecimal digits`);
    }
    return join(base, blobPath(digest));
  };

  /** Whether the blob is there and holds what its name says. */
  const holds = async (digest: string) => {
    if (verified.has(digest)) return true;
    try {
      if ((await digestOfFile(blobFile(digest))) !== digest) return false;
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return false;
      throw error;
    }
    verified.add(digest);
    return true;
  };

  const putStream = (chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>) =>
    explained(base, async () => {
      const path = join(aside, randomUUID());
      const hash = createHash('sha256');
      let sizeBytes = 0;
      try {
        const file = await open(path, 'wx');
        try {
          for await (const piece of inPieces(chunks)) {
            hash.update(piece);
            sizeBytes += piece.length;
            await file.appendFile(piece);
          }
          await file.sync();
        } finally {
          await file.close();
        }
        const digest = `sha256:${hash.digest('hex')}`;
        // A blob that is there stays as it is; one that a failing disk has damaged is replaced.
        if (!(await holds(digest))) {
          await rename(path, blobFile(digest));
          await syncFolder(blobs);
          verified.add(digest);
        }
        return { digest, sizeBytes };
      } finally {
        await rm(path, { force: true });
      }
    });

  return {
    root: base,
    putStream,
    putFile: (path) => putStream(createReadStream(path, { highWaterMark: PIECE_BYTES })),

    async putBytes(bytes) {
      const content = Buffer.from(bytes as Uint8Array);
      const digest = `sha256:${createHash('sha256').update(content).digest('hex')}`;
      if (await explained(base, () => holds(digest))) return { digest, sizeBytes: content.length };
      return putStream([content]);
    },

    async read(digest) {
      const path = blobFile(digest);
      const content = await readFile(path).catch((error) => {
        throw codeOf(error) === 'ENOENT' ? missing(digest, base) : storeError(error, base);
      });
      if (createHash('sha256').update(content).digest('hex') !== digest.slice('sha256:'.length)) {
        throw damaged(digest, base);
      }
      verified.add(digest);
      return content;
    },

    async path(digest) {
      const path = blobFile(digest);
      if (!(await explained(base, () => holds(digest)))) {
        const there = await stat(path).catch(() => undefined);
        throw there ? damaged(digest, base) : missing(digest, base);
      }
      return path;
    },

    async runFolder(run) {
      if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$/.test(run)) {
        throw new UserError(
          'InvalidRun',
          `run: "${run}" cannot be a folder's name: want letters, digits, ".", "_" and "-"`,
        );
      }
      const folder = join(base, 'runs', run);
      await explained(base, () => mkdir(folder, { recursive: true }));
      return folder;
    },
  };
}

/** Writes `value` as JSON so that a reader sees the old document or the new one, never a part. */
export function writeDocument(path: string, value: unknown): Promise<void> {
  return writeFileDurably(path, `${JSON.stringify(value, null, 2)}\n`);
}

/** Writes aside, syncs, renames over `path` and syncs the folder. */
export function writeFileDurably(path: string, bytes: Uint8Array | string): Promise<void> {
  return explained(dirname(path), async () => {
    const aside = `${path}.${randomUUID()}.aside`;
    try {
      const file = await open(aside, 'wx');
      try {
        await file.writeFile(bytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(aside, path);
      await syncFolder(dirname(path));
    } finally {
      await rm(aside, { force: true });
    }
  });
}

/** The document's value, to be held against its schema; undefined if there is none. */
export async function readDocument(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw storeError(error, path);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TrainerError('DocumentDamaged', `${path} is not JSON: ${(error as Error).message}`, { cause: error });
  }
}

/** The same bytes in fewer, larger pieces: a tar comes in blocks of 512 bytes. */
async function* inPieces(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let pending: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    pending.push(chunk);
    size += chunk.length;
    if (size < PIECE_BYTES) continue;
    yield Buffer.concat(pending);
    pending = [];
    size = 0;
  }
  if (size > 0) yield Buffer.concat(pending);
}

async function digestOfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: PIECE_BYTES })) hash.update(chunk);
  return `sha256:${hash.digest('hex')}`;
}

async function syncFolder(path: string): Promise<void> {
  let folder: FileHandle | undefined;
  try {
    folder = await open(path, 'r');
    await folder.sync();
  } catch (error) {
    // Some network file systems cannot sync a folder and make a rename durable by themselves.
    if (!['EINVAL', 'ENOTSUP', 'EBADF'].includes(codeOf(error) ?? '')) throw error;
  } finally {
    await folder?.close();
  }
}

async function removeAbandoned(aside: string): Promise<void> {
  for (const name of await readdir(aside)) {
    const path = join(aside, name);
    const age = Date.now() - ((await stat(path).catch(() => undefined))?.mtimeMs ?? Date.now());
    if (age > ABANDONED_MILLISECONDS) await rm(path, { force: true });
  }
}

/** Runs `action`; what the file system refuses is said in words. */
async function explained<T>(where: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw storeError(error, where);
  }
}

function storeError(error: unknown, where: string): unknown {
  const code = codeOf(error);
  const path = (error as NodeJS.ErrnoException).path ?? where;
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return new TrainerError('StoreFull', `no space left at ${where} (${code}): free some, or enlarge the volume`, {
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new TrainerError(
        'StoreNotWritable',
        `${path} cannot be used (${code}): this user needs to read and write it; in a pod, set securityContext.fsGroup`,
        { cause: error },
      );
    default:
      return error;
  }
}

function missing(digest: string, root: string): TrainerError {
  return new TrainerError('BlobMissing', `blob ${digest} is not in the store at ${root}`);
}

function damaged(digest: string, root: string): TrainerError {
  return new TrainerError(
    'BlobDamaged',
    `blob ${digest} in the store at ${root} does not hold what its name says: remove ${join(root, blobPath(digest))} and run what made it again`,
  );
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | undefined)?.code;
}
