/**
 * The cluster's processes. There are no pid files: a component is known by its command line, which names the cluster's
 * folder, so what runs is seen even after whoever started it was killed half-way.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { env } from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';
import { openLog, tail } from './logs.ts';

/** A running process of a cluster. */
export interface Running {
  pid: number;
  argv: string[];
  /** Seconds since it was started. */
  uptimeSeconds: number;
}

/** Variables that components are started with; the rest of the caller's environment must not change how a cluster behaves. */
const PASSED_ON = ['PATH', 'HOME', 'USER', 'LANG', 'TZ', 'TMPDIR'];

export interface Start {
  argv: string[];
  /** File that stdout and stderr are appended to. */
  log: string;
  /** `Us`: it ends when this process does. `Never`: it goes on, with no terminal. */
  diesWith: 'Us' | 'Never';
}

/** Starts a process. It is not waited for at exit. */
export async function start({ argv, log, diesWith }: Start): Promise<ChildProcess> {
  const output = await openLog(log);
  try {
    const child = spawn(argv[0]!, argv.slice(1), {
      detached: diesWith === 'Never',
      cwd: '/',
      // Number 3 is a pipe that closes when this process ends; `kube` watches it.
      stdio: ['ignore', output.fd, output.fd, ...(diesWith === 'Us' ? (['pipe'] as const) : [])],
      env: {
        ...Object.fromEntries(PASSED_ON.map((name) => [name, env[name]])),
        ...(diesWith === 'Us' && { KUBE_DIE_WITH_FD: '3' }),
      },
    });
    await new Promise<void>((resolve, reject) => child.once('spawn', resolve).once('error', reject));
    child.unref();
    const pipe = child.stdio[3] as { unref?(): void } | null | undefined;
    pipe?.unref?.();
    return child;
  } finally {
    await output.close();
  }
}

/** A component did not do what was expected of it. The message has the end of its log. */
export class ComponentFailed extends Error {
  static async of(name: string, what: string, log: string): Promise<ComponentFailed> {
    const lines = await tail(log, 15);
    const end = lines ? `The last lines of ${log}:\n${lines.replace(/^/gm, '  ')}` : `${log} is empty.`;
    return new ComponentFailed(`${name} ${what}. ${end}`);
  }
}

/**
 * Waits until `isReady` gives undefined; it says what is missing otherwise.
 *
 * @param child the component's process, if this one has started it
 * @throws ComponentFailed when the process ends, or is not ready after `timeoutSeconds`
 */
export async function ready(
  { name, log }: { name: string; log: string },
  child: ChildProcess | undefined,
  isReady: () => Promise<string | undefined>,
  timeoutSeconds: number,
): Promise<void> {
  const deadline = performance.now() + timeoutSeconds * 1000;
  for (;;) {
    if (child && (child.exitCode !== null || child.signalCode !== null)) {
      throw await ComponentFailed.of(
        name,
        `ended (${child.signalCode ?? `exit code ${child.exitCode}`}) at start`,
        log,
      );
    }
    const missing = await isReady();
    if (missing === undefined) return;
    if (performance.now() > deadline) {
      throw await ComponentFailed.of(name, `was not ready within ${timeoutSeconds} s (${missing})`, log);
    }
    await delay(50);
  }
}

/** All processes that have an argument in the folder `dir`, except this one. */
export async function processesOf(dir: string): Promise<Running[]> {
  const [entries, uptime] = await Promise.all([readdir('/proc'), readFile('/proc/uptime', 'utf8')]);
  const sinceBoot = Number(uptime.split(' ')[0]);
  const found = await Promise.all(
    entries
      .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
      .map((entry) => inspect(Number(entry), sinceBoot)),
  );
  return found.filter((running) => running !== undefined).filter(({ argv }) => argv.some((word) => names(word, dir)));
}

/** Whether an argument, as `--data-dir=/x/etcd` or `/x/node.yaml`, names something in `dir`. */
function names(argument: string, dir: string): boolean {
  const path = argument.replace(/^--[\w-]+=/, '');
  return path.startsWith(`${dir}/`);
}

/** Undefined for a process that has ended (also if nobody has collected its exit code yet) or is the kernel's. */
async function inspect(pid: number, sinceBoot: number): Promise<Running | undefined> {
  try {
    const [stat, cmdline] = await Promise.all([
      readFile(join('/proc', `${pid}`, 'stat'), 'utf8'),
      readFile(join('/proc', `${pid}`, 'cmdline'), 'utf8'),
    ]);
    // Fields from the third on: the second is the name in parentheses and may hold anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const state = fields[0];
    if (cmdline === '' || state === 'Z' || state === 'X') return undefined;
    // Field 22: start after boot in clock ticks, of which Linux shows 100 a second on every architecture.
    const uptimeSeconds = Math.max(0, sinceBoot - Number(fields[19]) / 100);
    return { pid, argv: cmdline.replace(/\0$/, '').split('\0'), uptimeSeconds };
  } catch {
    // It ended between the listing and now, or is another user's.
    return undefined;
  }
}

/** The component that a process is, as "etcd" or "process-node"; undefined for one that is none. */
export function componentOf({ argv }: Running): string | undefined {
  const program = basename(argv[0] ?? '');
  if (program === 'kube') return argv[1];
  return program === 'process-node' ? program : undefined;
}

/**
 * Ends processes: SIGTERM, and SIGKILL for what still lives after `graceSeconds`. Returns when all of them are gone.
 */
export async function stop(processes: readonly Running[], graceSeconds: number): Promise<void> {
  let left = await alive(processes);
  for (const { pid } of left) signal(pid, 'SIGTERM');
  const deadline = performance.now() + graceSeconds * 1000;
  for (let killed = false; left.length > 0; left = await alive(left)) {
    if (!killed && performance.now() > deadline) {
      for (const { pid } of left) signal(pid, 'SIGKILL');
      killed = true;
    }
    if (performance.now() > deadline + 30_000) {
      throw new Error(`processes ${left.map(({ pid }) => pid).join(', ')} do not end on SIGKILL`);
    }
    await delay(20);
  }
}

async function alive(processes: readonly Running[]): Promise<Running[]> {
  const now = await Promise.all(processes.map(({ pid }) => inspect(pid, 0)));
  // The same number with another command line is another process.
  return processes.filter(({ argv }, i) => now[i]?.argv.join('\0') === argv.join('\0'));
}

function signal(pid: number, name: NodeJS.Signals) {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
