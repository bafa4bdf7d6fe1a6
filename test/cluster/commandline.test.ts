// timeout: 600
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { env, execPath } from 'node:process';
import { createInterface } from 'node:readline';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withoutRoot } from './unprivileged.ts';

await withoutRoot(import.meta.filename);

const it = suite('npm run cluster');
const NAME = `commands-${process.pid}`;

interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

async function run(program: string, args: readonly string[]): Promise<Outcome> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const outcome = { code: -1, stdout: '', stderr: '' };
  child.stdout.on('data', (chunk) => (outcome.stdout += chunk));
  child.stderr.on('data', (chunk) => (outcome.stderr += chunk));
  [outcome.code] = await once(child, 'close');
  return outcome;
}

const MAIN = join(import.meta.dirname, 'main.ts');
const cluster = (verb: string, ...args: string[]) => run(execPath, [MAIN, verb, '--name', NAME, ...args]);

it.before(async () => {
  // A folder whose name a shell would take apart.
  env.XDG_STATE_HOME = await mkdtemp(join(tmpdir(), "fovea state's "));
  const { code, stderr } = await cluster('up');
  assert.is(code, 0, stderr);
});
it.after(async () => {
  await cluster('down', '--purge');
  await rm(env.XDG_STATE_HOME!, { recursive: true });
});

it('shows every component with process, uptime, port and health', async () => {
  const { code, stdout } = await cluster('status');
  assert.is(code, 0, stdout);
  for (const component of ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'process-node']) {
    assert.match(stdout, new RegExp(`^${component} +\\d+ +\\d+[smhd]\\S* +\\d+ +healthy$`, 'm'));
  }
});

it('gives a shell what kubectl needs', async () => {
  const script = `eval "$('${execPath}' '${MAIN}' env --name ${NAME})" && kubectl get --raw /readyz && helm version --short`;
  const { code, stdout, stderr } = await run('sh', ['-c', script]);
  assert.is(code, 0, stderr);
  assert.match(stdout, /^okv4\./);
});

it('gives the same as JSON', async () => {
  const { stdout } = await cluster('env', '--json');
  assert.equal(Object.keys(JSON.parse(stdout)), ['KUBECONFIG', 'PATH']);
});

it('shows the logs of one component, and follows them', async () => {
  const { stdout } = await cluster('logs', 'process-node');
  assert.match(stdout, 'kubelet API');
  const args = [MAIN, 'logs', 'kube-scheduler', '--follow', '--name', NAME];
  const following = spawn(execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(createInterface({ input: following.stdout }), 'line');
  assert.is(following.exitCode, null);
  following.kill();
  await once(following, 'close');
});

const mistakes: [string, string[], RegExp][] = [
  ['a command that there is not', ['start'], /^there is no command start/],
  ['an option of another command', ['down', '--images', 'x'], /^down takes no --images/],
  ['an option that there is not', ['up', '--fast'], /--fast/],
  ['a component that there is not', ['logs', 'kubelet'], /^there is no component kubelet, only etcd, /],
  ['a cluster that there is not', ['status', '--name', 'absent'], /^there is no cluster absent, only commands-/],
  ['a name that can not be', ['up', '--name', '../x'], /^--name=\.\.\/x: /],
  ['an image file that there is not', ['up', '--images', '/absent.yaml'], /^--images=\/absent\.yaml: ENOENT/],
];
for (const [mistake, args, message] of mistakes) {
  it(`refuses ${mistake}, and says so`, async () => {
    const { code, stderr } = await run(execPath, [MAIN, ...args]);
    assert.is(code, 2);
    assert.match(stderr, message);
  });
}

it('says that a component does not run, and exits with 1', async () => {
  assert.is((await cluster('down')).code, 0);
  const { code, stdout } = await cluster('status');
  assert.is(code, 1);
  assert.match(stdout, /^etcd +- +- +\d+ +not running$/m);
});

it.run();
