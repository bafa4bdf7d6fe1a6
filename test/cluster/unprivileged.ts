/** Tests of the cluster run without root wherever they are started: that the cluster needs none is part of what they show. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, copyFile, link, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { env, execArgv, execPath, exit, geteuid, stdout } from 'node:process';
import { kubeBinary, kubectlBinaries, processNodeBinary } from './build.ts';
import { command } from './command.ts';

/** Debian's `nobody`: a user with no home, no shell and no rights. */
const NOBODY = 65_534;

/**
 * Started as root: runs the test file again as an ordinary user, with the cluster's programs at hand and XDG folders of
 * its own, and ends this process as that one ended. Started as anybody else: returns.
 */
export async function withoutRoot(file: string): Promise<void> {
  if (geteuid?.() !== 0) return;
  const id = { uid: NOBODY, gid: NOBODY };
  const canRead = await command('setpriv', [
    '--reuid',
    `${NOBODY}`,
    '--regid',
    `${NOBODY}`,
    '--clear-groups',
    'test',
    '-r',
    file,
  ]).then(
    () => true,
    () => false,
  );
  if (!canRead) {
    stdout.write(`SKIP: root runs this as an ordinary user, who cannot read ${file}\n`);
    exit(0);
  }
  const programs = [await kubeBinary(), await processNodeBinary(), join(await kubectlBinaries(), 'kubectl')];
  const home = await mkdtemp(join(tmpdir(), 'fovea-test-'));
  await chown(home, NOBODY, NOBODY);
  const cache = join(home, 'cache', 'fovea');
  for (const folder of programs.map(dirname)) await linkFolder(folder, join(cache, basename(folder)));
  await openTo(join(home, 'cache'));
  const child = spawn(execPath, [...execArgv, file], {
    ...id,
    stdio: 'inherit',
    env: {
      ...env,
      HOME: home,
      USER: 'nobody',
      XDG_CACHE_HOME: join(home, 'cache'),
      XDG_STATE_HOME: join(home, 'state'),
    },
  });
  const [code] = await once(child, 'close');
  await rm(home, { recursive: true, force: true });
  exit(code ?? 1);
}

/** The same files in another folder; copies only where it is on another disk. */
async function linkFolder(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const name of await readdir(from)) {
    await link(join(from, name), join(to, name)).catch(() => copyFile(join(from, name), join(to, name)));
  }
}

/** Lets everybody look into `folder` and the one in it. */
async function openTo(folder: string): Promise<void> {
  for (const path of [folder, join(folder, 'fovea')]) {
    await chmod(path, 0o755);
    await chown(path, NOBODY, NOBODY);
  }
}
