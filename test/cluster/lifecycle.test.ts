// timeout: 600
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Cluster, down, status, up } from './cluster.ts';
import { command } from './command.ts';
import { processesOf } from './processes.ts';
import { COMPONENTS, type Component, folderOf } from './record.ts';
import { withoutRoot } from './unprivileged.ts';

await withoutRoot(import.meta.filename);

const it = suite('cluster lifecycle');
const NAME = `lifecycle-${process.pid}`;
const OTHER = `${NAME}-other`;
const quiet = { say() {}, update() {} };

/** Seconds that a pod of the image sleeps: the number tells its processes from all others of the machine. */
const SLEEP_SECONDS = 100_000 + process.pid;

let images: string;
let cluster: Cluster;

it.before(async () => {
  images = join(await mkdtemp(join(tmpdir(), 'fovea-images-')), 'images.yaml');
  await writeFile(images, `images:\n  test/sleep:\n    command: [/bin/sleep, '${SLEEP_SECONDS}']\n`);
  cluster = await up({ name: NAME, images, progress: quiet });
});

it.after(async () => {
  await down({ name: NAME, purge: true });
  await down({ name: OTHER, purge: true });
  await rm(join(images, '..'), { recursive: true });
});

const kubectl = (of: Cluster, ...args: string[]) =>
  command(join(of.tools, 'kubectl'), ['--kubeconfig', of.kubeconfig, ...args]);

/** Process of each component that runs. */
async function pids(name = NAME): Promise<Partial<Record<Component, number>>> {
  const { components } = (await status({ name }))!;
  return Object.fromEntries(components.filter(({ pid }) => pid).map(({ component, pid }) => [component, pid]));
}

async function problems(name = NAME): Promise<(string | undefined)[]> {
  return (await status({ name }))!.components.map(({ problem }) => problem);
}

const healthy = COMPONENTS.map(() => undefined);

async function kill(victims: readonly number[]) {
  for (const pid of victims) process.kill(pid, 'SIGKILL');
  while ((await processesOf(cluster.dir)).some(({ pid }) => victims.includes(pid))) await delay(20);
}

/** Processes of the test's pods. */
async function sleepers(): Promise<number[]> {
  const found: number[] = [];
  for (const pid of (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry))) {
    const words = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (words.startsWith('/bin/sleep\0') && words.includes(`\0${SLEEP_SECONDS}\0`)) found.push(Number(pid));
  }
  return found;
}

async function runPod(name: string) {
  await kubectl(cluster, 'run', name, '--image=test/sleep', '--restart=Always');
  await kubectl(cluster, 'wait', `pod/${name}`, '--for=condition=Ready', '--timeout=60s');
}

it('has every component healthy after up, and says where it listens', async () => {
  assert.equal(await problems(), healthy);
  assert.equal(JSON.parse(await kubectl(cluster, 'version', '-o', 'json')).serverVersion.gitVersion, 'v1.34.4');
});

it('leaves what runs alone on a second up', async () => {
  const before = await pids();
  await up({ name: NAME, progress: quiet });
  assert.equal(await pids(), before);
});

it('keeps objects through down and up, on the same address', async () => {
  await kubectl(cluster, 'create', 'configmap', 'kept', '--from-literal=key=value');
  await down({ name: NAME });
  assert.equal(await pids(), {});
  const again = await up({ name: NAME, progress: quiet });
  assert.equal(again.server, cluster.server);
  assert.is(await kubectl(again, 'get', 'configmap', 'kept', '-o', 'jsonpath={.data.key}'), 'value');
});

it('comes back with up after all its processes were killed', async () => {
  await kubectl(cluster, 'create', 'configmap', 'before-kill', '--from-literal=key=value');
  await kill(Object.values(await pids()));
  await up({ name: NAME, progress: quiet });
  assert.equal(await problems(), healthy);
  assert.is(await kubectl(cluster, 'get', 'configmap', 'before-kill', '-o', 'jsonpath={.data.key}'), 'value');
});

for (const victim of COMPONENTS) {
  it(`starts ${victim} again on up when that alone was killed, and nothing else`, async () => {
    const before = await pids();
    await kill([before[victim]!]);
    assert.is((await status({ name: NAME }))!.components.find((c) => c.component === victim)!.problem, 'not running');
    await up({ name: NAME, progress: quiet });
    const { [victim]: restarted, ...others } = await pids();
    const { [victim]: killed, ...unharmed } = before;
    assert.is.not(restarted, killed);
    assert.equal(others, unharmed);
    assert.equal(await problems(), healthy);
  });
}

it('leaves no process after down, not of its pods either, and runs the pods again after up', async () => {
  await runPod('sleeper');
  assert.is((await sleepers()).length, 1);
  await down({ name: NAME });
  assert.equal(await sleepers(), []);
  assert.equal(await processesOf(cluster.dir), []);
  await up({ name: NAME, progress: quiet });
  await kubectl(cluster, 'wait', 'pod/sleeper', '--for=condition=Ready', '--timeout=60s');
  assert.is((await sleepers()).length, 1);
  await kubectl(cluster, 'delete', 'pod', 'sleeper', '--grace-period=1');
});

it('gives a claim a volume of the default class', async () => {
  const claim = {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: 'claim' },
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
  };
  const file = join(images, '..', 'claim.json');
  await writeFile(file, JSON.stringify(claim));
  await kubectl(cluster, 'apply', '-f', file);
  await kubectl(cluster, 'wait', 'pvc/claim', '--for=jsonpath={.status.phase}=Bound', '--timeout=60s');
  assert.is(
    (await readdir(join(cluster.dir, 'volumes'))).filter((entry) => entry.startsWith('default-claim-')).length,
    1,
  );
});

it('runs clusters of two names side by side, each with its own objects and networks', async () => {
  const other = await up({ name: OTHER, progress: quiet });
  assert.equal(await problems(OTHER), healthy);
  assert.equal(await problems(), healthy);
  assert.is.not(other.server, cluster.server);
  await kubectl(other, 'create', 'namespace', 'only-in-other');
  assert.not.match(await kubectl(cluster, 'get', 'namespaces'), 'only-in-other');
  const address = (of: Cluster) => kubectl(of, 'get', 'service', 'kubernetes', '-o', 'jsonpath={.spec.clusterIP}');
  assert.is.not(await address(other), await address(cluster));
});

it('removes a cluster and its data on down with purge, and not the other one', async () => {
  const folder = folderOf(OTHER);
  await down({ name: OTHER, purge: true });
  assert.is(
    await access(folder).then(
      () => 'there',
      () => 'gone',
    ),
    'gone',
  );
  assert.equal(await problems(), healthy);
  const anew = await up({ name: OTHER, progress: quiet });
  assert.not.match(await kubectl(anew, 'get', 'namespaces'), 'only-in-other');
  await down({ name: OTHER, purge: true });
});

it('moves to other ports when its own are taken while it is down', async () => {
  await down({ name: NAME });
  const squatter = createServer().listen(Number(new URL(cluster.server).port), '127.0.0.1');
  await once(squatter, 'listening');
  try {
    const moved = await up({ name: NAME, progress: quiet });
    assert.is.not(moved.server, cluster.server);
    assert.equal(await problems(), healthy);
    assert.is(await kubectl(moved, 'get', 'configmap', 'kept', '-o', 'jsonpath={.data.key}'), 'value');
    cluster = moved;
  } finally {
    squatter.close();
  }
});

it('does one up after another when two are asked for at once', async () => {
  await down({ name: NAME });
  await Promise.all([up({ name: NAME, progress: quiet }), up({ name: NAME, progress: quiet })]);
  const running = await processesOf(cluster.dir);
  assert.is(running.length, COMPONENTS.length);
  assert.equal(await problems(), healthy);
});

it('comes back with up after an up that was killed half-way', async () => {
  await down({ name: NAME });
  const half: ChildProcess = spawn(execPath, [join(import.meta.dirname, 'main.ts'), 'up', '--name', NAME], {
    stdio: 'ignore',
  });
  while ((await processesOf(cluster.dir)).length < 2) await delay(5);
  half.kill('SIGKILL');
  await once(half, 'exit');
  await up({ name: NAME, progress: quiet });
  assert.equal(await problems(), healthy);
  assert.is((await processesOf(cluster.dir)).length, COMPONENTS.length);
});

it('names the component that can not start, with the end of its log and where that is', async () => {
  await down({ name: NAME });
  const wal = join(cluster.dir, 'etcd', 'member', 'wal');
  for (const entry of await readdir(wal)) await writeFile(join(wal, entry), 'not a write-ahead log');
  const error: Error | undefined = await up({ name: NAME, progress: quiet }).then(
    () => undefined,
    (e) => e,
  );
  assert.match(error?.message ?? '', /^etcd ended .* at start\. The last lines of .*\/logs\/etcd\.log:\n/);
});

it.run();
