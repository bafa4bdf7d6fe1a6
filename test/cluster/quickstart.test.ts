// timeout: 900
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { env, execPath, geteuid } from 'node:process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Kubectl, kubectlOf } from '../../examples/01-quickstart/install.ts';
import { kubectlBinaries } from './build.ts';
import { kubeconfigFile } from './credentials.ts';
import { processesOf } from './processes.ts';
import { withoutRoot } from './unprivileged.ts';

await withoutRoot(import.meta.filename);

const it = suite('quickstart');
const RUN = join(import.meta.dirname, '../../examples/01-quickstart/run.mjs');

/** In place of the user's own: whoever runs the tests may have a quickstart cluster. */
let state: string;
let clusters: string;
let kubectl: Kubectl;

it.before(async () => {
  state = await mkdtemp(join(tmpdir(), 'fovea-quickstart-'));
  clusters = join(state, 'fovea', 'clusters');
  const kubeconfig = kubeconfigFile(join(clusters, 'quickstart'), 'admin');
  kubectl = kubectlOf({ kubeconfig, tools: await kubectlBinaries() });
});

it.after(async () => {
  await quickstart('--down');
  await rm(state, { recursive: true });
});

/** Runs it to its end. */
async function quickstart(...words: string[]): Promise<{ code: number; output: string; seconds: number }> {
  const started = performance.now();
  const child = spawn(execPath, [RUN, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...env, XDG_STATE_HOME: state },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk) => (output += chunk));
  }
  const [code] = await once(child, 'close');
  return { code, output, seconds: (performance.now() - started) / 1000 };
}

/** `kind name: status of Ready` of the four objects. */
async function readiness(): Promise<string[]> {
  const { items } = JSON.parse(await kubectl('get', 'fds,ftj,fme,fis', '-o', 'json'));
  return items.map(
    ({ kind, metadata, status }: { kind: string; metadata: { name: string }; status: Record<string, never[]> }) => {
      const ready = status.conditions?.find(({ type }) => type === 'Ready') as { status: string } | undefined;
      return `${kind} ${metadata.name}: ${ready?.status}`;
    },
  );
}

/** Uids of the Jobs and Deployments that the operator has made. */
async function children(): Promise<string[]> {
  const { items } = JSON.parse(await kubectl('get', 'jobs,deployments', '-o', 'json'));
  return items.map(({ metadata }: { metadata: { uid: string } }) => metadata.uid).sort();
}

interface Process {
  pid: number;
  parent: number;
  /** Clock ticks after boot: the same number with another start is another process. */
  start: string;
}

async function allProcesses(): Promise<Process[]> {
  const found = await Promise.all(
    (await readdir('/proc'))
      .filter((entry) => /^\d+$/.test(entry))
      .map(async (entry) => {
        const stat = await readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '');
        const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        return { pid: Number(entry), parent: Number(fields[1]), start: fields[19] ?? '', state: fields[0] ?? '' };
      }),
  );
  return found.filter(({ state }) => state !== '' && state !== 'Z');
}

/** The cluster's own processes and all that descend from them: the pods'. */
async function family(): Promise<Process[]> {
  const pids = new Set((await processesOf(clusters)).map(({ pid }) => pid));
  const all = await allProcesses();
  for (let size = 0; size < pids.size; ) {
    size = pids.size;
    for (const { pid, parent } of all) if (pids.has(parent)) pids.add(pid);
  }
  return all.filter(({ pid }) => pids.has(pid));
}

let first: { seconds: number };

it('ends well, with all four objects ready, for a user without root', async () => {
  assert.is.not(geteuid?.(), 0);
  const { code, output, seconds } = await quickstart();
  assert.is(code, 0, output);
  assert.equal(await readiness(), [
    'Dataset fashion: True',
    'TrainingJob fashion: True',
    'ModelExport fashion: True',
    'InferenceService fashion: True',
  ]);
  assert.match(output, /1,000 answers in .*\n +accuracy /);
  first = { seconds };
});

it('finds what is done when it is run again, and is faster', async () => {
  const before = await children();
  const { code, output, seconds } = await quickstart();
  assert.is(code, 0, output);
  assert.equal(await children(), before);
  assert.ok(seconds < first.seconds / 2, `${seconds} s after ${first.seconds} s`);
});

it('leaves no process, no pod’s either, and nothing of its state when it is cleaned up, and may be cleaned up twice', async () => {
  const before = await family();
  const commands = await Promise.all(before.map(({ pid }) => readFile(`/proc/${pid}/cmdline`, 'utf8')));
  for (const program of ['operator/main.ts', 'operator/gateway/main.ts', 'trainer-image/main.ts']) {
    assert.ok(
      commands.some((words) => words.includes(program)),
      `${program} runs`,
    );
  }
  const { code, output } = await quickstart('--down');
  assert.is(code, 0, output);
  const now = await allProcesses();
  assert.equal(
    before.filter(({ pid, start }) => now.some((other) => other.pid === pid && other.start === start)),
    [],
  );
  assert.equal(await readdir(clusters), []);
  const again = await quickstart('--down');
  assert.is(again.code, 0, again.output);
});

it.run();
