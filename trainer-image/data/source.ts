/** Where pictures come from. Every source ends as a list of files that can be read in any order and more than once. */
import { constants } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { PrepareSource } from '../contract.ts';
import { UserError } from '../errors.ts';
import { openArchive } from './archive.ts';
import { download } from './download.ts';

export interface SourceFile {
  /** Relative to the source's root, with `/`. */
  path: string;
  sizeBytes: number;
  load(): Promise<Buffer>;
}

export interface RefusedFile {
  path: string;
  reason: 'Link' | 'NotAFile' | 'UnsafePath' | 'UnreadableName' | 'DuplicatePath';
}

export interface Source {
  /** Ascending by path. */
  files: SourceFile[];
  /** Folders, empty ones too. */
  folders: string[];
  /** What is no file that could be read. */
  refused: RefusedFile[];
  /** Files that operating systems leave behind. */
  ignored: string[];
  /** Whether the files may all lie in one folder that was packed along with them. */
  packed: boolean;
  close(): Promise<void>;
}

export interface SourceContext {
  scratch: string;
  signal: AbortSignal;
  /** Called with the share done, in percent. */
  onProgress(stage: string, percent: number): void;
}

const CLUTTER = /(^|\/)(\.[^/]*|__MACOSX|Thumbs\.db|desktop\.ini|@eaDir|lost\+found)(\/|$)/i;

/** Hidden files, and what macOS, Windows and file servers put beside pictures. */
export function isClutter(path: string): boolean {
  return CLUTTER.test(path);
}

/** By code units, the same on every machine. */
export function byPath(a: { path: string }, b: { path: string }): number {
  return a.path < b.path ? -1 : a.path > b.path ? 1 : 0;
}

/** Throws UserError where the source is not there or is not what the task says. */
export async function openSource(source: PrepareSource, context: SourceContext): Promise<Source> {
  if (source.type === 'HTTP') {
    const archive = await download(source.url, source.digest, context);
    try {
      return await openArchive(archive.path, source.url, context);
    } finally {
      await archive.remove();
    }
  }
  const found = await stat(source.path).catch((error: NodeJS.ErrnoException) => {
    throw new UserError('SourceNotFound', `source.path: ${source.path} cannot be opened (${error.code})`, {
      cause: error,
    });
  });
  return found.isDirectory() ? openFolder(source.path, context) : openArchive(source.path, source.path, context);
}

async function openFolder(root: string, { signal }: SourceContext): Promise<Source> {
  const source: Source = { files: [], folders: [], refused: [], ignored: [], packed: false, async close() {} };
  const pending = [''];
  for (let folder = pending.pop(); folder !== undefined; folder = pending.pop()) {
    signal.throwIfAborted();
    for (const entry of await readdir(join(root, folder), { withFileTypes: true, encoding: 'buffer' })) {
      const name = entry.name.toString('utf8');
      const path = folder === '' ? name : `${folder}/${name}`;
      if (isClutter(name)) source.ignored.push(path);
      // A name that is no UTF-8 has no faithful form in a report or a dataset.
      else if (!Buffer.from(name).equals(entry.name)) source.refused.push({ path, reason: 'UnreadableName' });
      else if (entry.isDirectory()) {
        source.folders.push(path);
        pending.push(path);
      } else if (entry.isSymbolicLink()) source.refused.push({ path, reason: 'Link' });
      else if (!entry.isFile()) source.refused.push({ path, reason: 'NotAFile' });
      else
        source.files.push({ path, sizeBytes: (await stat(join(root, path))).size, load: () => load(join(root, path)) });
    }
  }
  for (const list of [source.files, source.refused]) list.sort(byPath);
  source.folders.sort();
  source.ignored.sort();
  return source;
}

async function load(path: string): Promise<Buffer> {
  // Not through a link that has taken the file's place since.
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    return await file.readFile();
  } finally {
    await file.close();
  }
}
