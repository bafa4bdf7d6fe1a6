/** Where a process that stands still is: its JavaScript stack, or what its threads wait for in the kernel. */
import { randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { Worker } from 'node:worker_threads';

/** A process that runs JavaScript answers at once; one that does not in this time is in native code. */
const ANSWER_MILLISECONDS = 2000;
/** Characters, as the contract allows. */
const STACK_CHARACTERS = 4096;

/** A name for a socket without a file (unix(7), abstract). All that can be had there is a stack. */
export function stackSocket(): string {
  return `\0fovea-stack-${randomUUID()}`;
}

/** From now on this process answers there where it is; it may end all the same. */
export function answerForStack(socket: string): void {
  new Worker(new URL('./stack-worker.ts', import.meta.url), { workerData: { socket }, execArgv: [] }).unref();
}

/** The stack of a process that answers for it at `socket`, innermost first; or, in words, why there is none. */
export async function takeStack(pid: number, socket: string): Promise<string> {
  return ((await askForStack(socket)) ?? (await describeThreads(pid))).slice(0, STACK_CHARACTERS);
}

/** Undefined if there is no answer in time. */
async function askForStack(socket: string): Promise<string | undefined> {
  const connection = connect(socket);
  const expired = setTimeout(() => connection.destroy(), ANSWER_MILLISECONDS);
  try {
    return (await text(connection)) || undefined;
  } catch {
    return undefined;
  } finally {
    clearTimeout(expired);
  }
}

/** Threads by what they wait for, the most frequent first. */
async function describeThreads(pid: number): Promise<string> {
  const counts = new Map<string, number>();
  const folder = `/proc/${pid}/task`;
  for (const thread of await readdir(folder).catch(() => [])) {
    const read = (name: string) => readFile(`${folder}/${thread}/${name}`, 'utf8').catch(() => '');
    const [name, status, waits] = await Promise.all([read('comm'), read('status'), read('wchan')]);
    const state = /^State:\s+(.+)$/m.exec(status)?.[1] ?? 'gone';
    const words = `${name.trim()}: ${waits && waits !== '0' ? `${state} in ${waits}` : state}`;
    counts.set(words, (counts.get(words) ?? 0) + 1);
  }
  if (counts.size === 0) return 'the process has ended';
  const lines = [...counts].sort((a, b) => b[1] - a[1]).map(([words, count]) => `${count} × ${words}`);
  return `no JavaScript stack within ${ANSWER_MILLISECONDS / 1000} s: the engine is in native code. Its threads:\n${lines.join('\n')}`;
}
