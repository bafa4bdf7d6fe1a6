/** Where a process that stands still is: its JavaScript stack, or what its threads wait for in the kernel. */
import { randomUUID } from 'node:crypto';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** A process that runs JavaScript answers at once; one that makes no report in this time is in native code. */
const REPORT_SECONDS = 2;
const LOOK_MILLISECONDS = 50;
/** Characters, as the contract allows. */
const STACK_CHARACTERS = 4096;

/**
 * Options with which a process can be asked for its stack; `file` is where it then writes its report, in `folder`.
 * The environment is left out of the report, since it may hold secrets.
 */
export function stackOptions(folder: string): { file: string; options: string[] } {
  const name = `stack-${randomUUID()}.json`;
  return {
    file: join(folder, name),
    options: [
      '--report-on-signal',
      '--report-signal=SIGUSR2',
      `--report-directory=${folder}`,
      `--report-filename=${name}`,
      '--report-compact',
      '--report-exclude-network',
      '--report-exclude-env',
    ],
  };
}

/** The stack, innermost first, of a process that was started with `stackOptions` and runs its program by now. */
export async function takeStack(pid: number, file: string): Promise<string> {
  await rm(file, { force: true });
  try {
    process.kill(pid, 'SIGUSR2');
  } catch {
    return 'the process has ended';
  }
  const deadline = performance.now() + REPORT_SECONDS * 1000;
  while (performance.now() < deadline) {
    await delay(LOOK_MILLISECONDS);
    const stack = await readReport(file);
    if (stack === undefined) continue;
    await rm(file, { force: true });
    return stack.slice(0, STACK_CHARACTERS);
  }
  const threads = await describeThreads(pid);
  return `no JavaScript stack within ${REPORT_SECONDS} s: the engine is in native code. ${threads}`.slice(
    0,
    STACK_CHARACTERS,
  );
}

/** Undefined until the report is whole. */
async function readReport(file: string): Promise<string | undefined> {
  try {
    const { javascriptStack } = JSON.parse(await readFile(file, 'utf8')) as {
      javascriptStack?: { message?: string; stack?: string[] };
    };
    const frames = javascriptStack?.stack ?? [];
    const isEmpty = frames.length === 0 || /^Unavailable/.test(frames[0]!);
    return isEmpty ? 'no JavaScript is running: the engine waits for an event' : frames.join('\n');
  } catch {
    return undefined;
  }
}

/** Threads by what they wait for, the most frequent first. */
async function describeThreads(pid: number): Promise<string> {
  const counts = new Map<string, number>();
  try {
    for (const thread of await readdir(`/proc/${pid}/task`)) {
      const read = (name: string) => readFile(`/proc/${pid}/task/${thread}/${name}`, 'utf8').catch(() => '');
      const [name, status, waits] = await Promise.all([read('comm'), read('status'), read('wchan')]);
      const state = /^State:\s+(.+)$/m.exec(status)?.[1] ?? 'gone';
      const where = waits && waits !== '0' ? `${state} in ${waits}` : state;
      const words = `${name.trim()}: ${where}`;
      counts.set(words, (counts.get(words) ?? 0) + 1);
    }
  } catch (error) {
    return `Its threads cannot be read: ${(error as Error).message}`;
  }
  const lines = [...counts].sort((a, b) => b[1] - a[1]).map(([words, count]) => `${count} × ${words}`);
  return `Its threads:\n${lines.join('\n')}`;
}
