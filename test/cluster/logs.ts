/** The components' logs. */
import { open, rename, stat } from 'node:fs/promises';

/** A log longer than this is set aside (as `.1`, one of them) when its component is started. */
const MAX_LOG_BYTES = 20 * 2 ** 20;

/** Opens a component's log for appending. */
export async function openLog(path: string) {
  const { size } = await stat(path).catch(() => ({ size: 0 }));
  if (size > MAX_LOG_BYTES) await rename(path, `${path}.1`);
  return open(path, 'a', 0o600);
}

/** The last `lines` lines of a file, "" if there is none; long lines are cut. */
export async function tail(path: string, lines: number): Promise<string> {
  const file = await open(path, 'r').catch(() => undefined);
  if (!file) return '';
  try {
    const { size } = await file.stat();
    const length = Math.min(size, lines * 500);
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length);
    const all = buffer.toString('utf8').trimEnd().split('\n').slice(-lines);
    return all.map((line) => (line.length > 500 ? `${line.slice(0, 500)}…` : line)).join('\n');
  } finally {
    await file.close();
  }
}
