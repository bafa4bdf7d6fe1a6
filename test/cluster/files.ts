/** Files that appear whole or not at all. */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';

/** Writes aside, syncs, renames; a file that already says this is left alone. Says whether it was changed. */
export async function writeWhole(path: string, content: string, mode = 0o600): Promise<boolean> {
  const now = await readFile(path, 'utf8').catch(() => undefined);
  if (now === content) return false;
  const aside = `${path}.${randomBytes(4).toString('hex')}.tmp`;
  const file = await open(aside, 'wx', mode);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(aside, path);
  return true;
}

/**
 * Has `fill` make the folder's content aside, and puts it in place of `path` when all of it is there and on disk.
 * Only one process may do that for a path at a time (see `locked`).
 */
export async function makeFolder(path: string, fill: (folder: string) => Promise<void>, mode = 0o755): Promise<void> {
  const aside = `${path}.partial`;
  // Left by somebody who was killed.
  await rm(aside, { recursive: true, force: true });
  await mkdir(aside, { recursive: true, mode });
  await fill(aside);
  for (const entry of await readdir(aside, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) await sync(join(entry.parentPath, entry.name));
  }
  await rm(path, { recursive: true, force: true });
  await rename(aside, path);
  await sync(dirname(path));
}

async function sync(path: string) {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** SHA-256 over names and contents of the folder's files for which `counts` holds, as 16 hexadecimal digits. */
export async function digestOf(folder: string, counts: (path: string) => boolean): Promise<string> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .filter(counts);
  const hash = createHash('sha256');
  for (const path of paths.sort()) {
    const content = await readFile(join(folder, path));
    hash.update(`${path}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex').slice(0, 16);
}
