/** What happens to pods when their node goes away, comes back, or does not. */
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { eventually } from '../eventually.ts';
import { isReady, type KubeObject, podOf, processesWith, serving, startNodeCluster } from './node-fixture.ts';

const cluster = await startNodeCluster('userns');
const { apply, until, finished, logs, remove, kubectl } = cluster;
const it = suite('a node that goes and comes');
it.after(async () => cluster[Symbol.asyncDispose]());

const emptyDir = { volumes: [{ name: 'd', emptyDir: {} }] };
const volumeMounts = [{ name: 'd', mountPath: '/d' }];
const podFolder = ({ metadata }: KubeObject) => join(cluster.dir, 'state', 'pods', metadata.uid);

it('containers run on while the node is away, and it takes them over without touching their readiness', async () => {
  await apply(podOf('stays', serving('still here')));
  const before = await until('pod', 'stays', isReady);
  await cluster.stop('SIGKILL');
  assert.is(await (await fetch(`http://${before.status.podIP}:8080`)).text(), 'still here');
  await cluster.start();
  const { message } = await eventually(async () => {
    const [adopted] = await cluster.list('events', '--field-selector=reason=Adopted,involvedObject.name=stays');
    return adopted;
  });
  assert.match(message, /main/);
  const after = await cluster.get('pod', 'stays');
  assert.equal(after.status.containerStatuses, before.status.containerStatuses);
  assert.equal(after.status.conditions, before.status.conditions);
  assert.is(after.status.podIP, before.status.podIP);
  assert.is((await kubectl(['exec', 'stays', '--', 'echo', 'reached'])).stdout, 'reached\n');
  await remove('pod', 'stays', '--now');
});

it('the exit code, message and log of a container that ended meanwhile are found', async () => {
  await apply(
    podOf(
      'ends',
      {
        args: ['until test -e /d/go; do sleep 0.1; done; echo last words; echo why > /dev/termination-log; exit 42'],
        volumeMounts,
      },
      emptyDir,
    ),
  );
  const pod = await until('pod', 'ends', isReady);
  await cluster.stop('SIGKILL');
  // What the container itself would find in its volume.
  await writeFile(join(podFolder(pod), 'volumes', 'd', 'go'), '');
  await eventually(async () => (await readdir(join(podFolder(pod), 'containers', 'main', '0'))).includes('exit.json'));
  await cluster.start();
  const { status } = await finished('ends');
  const { exitCode, message } = status.containerStatuses[0].state.terminated;
  assert.is(exitCode, 42);
  assert.is(message, 'why\n');
  assert.is(await eventually(() => logs('ends').catch(() => '')), 'last words\n');
});

it('a pod deleted while the node is away ends when the node is back', async () => {
  const marker = `forgotten-${process.pid}`;
  await apply(podOf('forgotten', { args: [`while :; do sleep 0.1; done; : ${marker}`] }));
  await until('pod', 'forgotten', isReady);
  await cluster.stop();
  await remove('pod', 'forgotten', '--force', '--grace-period=0');
  assert.is.not((await processesWith(marker)).length, 0);
  await cluster.start();
  await eventually(async () => (await processesWith(marker)).length === 0);
});

it('containers end by themselves when their node stays away, and say so when it is back', async () => {
  const marker = `orphan-${process.pid}`;
  await apply(podOf('orphan', { args: [`trap '' TERM; while :; do sleep 0.1; done; : ${marker}`] }));
  await until('pod', 'orphan', isReady);
  await cluster.stop('SIGKILL');
  await eventually(async () => (await processesWith(marker)).length === 0);
  await cluster.start();
  const { status } = await finished('orphan');
  assert.is(status.phase, 'Failed');
  assert.match(status.containerStatuses[0].state.terminated.message, /node was away/);
  assert.ok(status.conditions.some((c: KubeObject) => c.type === 'DisruptionTarget' && c.status === 'True'));
});

it('down leaves no process, and after it pods run again or have failed, by their restart policy', async () => {
  const marker = `downed-${process.pid}`;
  const args = [`trap '' TERM; (setsid sleep 1000; : ${marker}) & while :; do sleep 0.1; done; : ${marker}`];
  await apply(podOf('again', { args }, { restartPolicy: 'Always' }), podOf('once', { args }));
  await until('pod', 'again', isReady);
  await until('pod', 'once', isReady);
  await cluster.stop();
  await cluster.down();
  assert.equal(await processesWith(marker), []);
  assert.equal(await processesWith(cluster.dir), []);
  await cluster.start();
  const once = await finished('once');
  assert.is(once.status.phase, 'Failed');
  assert.ok(once.status.conditions.some((c: KubeObject) => c.type === 'DisruptionTarget'));
  const again = await until(
    'pod',
    'again',
    ({ status }) => status.containerStatuses[0].restartCount === 1 && isReady({ status }),
  );
  assert.is(again.status.containerStatuses[0].lastState.terminated.reason, 'ContainerStatusUnknown');
  await remove('pod', 'again', '--now');
});

it('a second node on the same state directory is refused', async () => {
  const refusal = await cluster.down().then(
    () => 'it was not',
    (error: Error) => error.message,
  );
  assert.match(refusal, /another process-node runs on stateDir/);
});

it('a status that somebody else overwrites is put right', async () => {
  await apply(podOf('robbed', { args: ['while :; do sleep 0.1; done'] }));
  await until('pod', 'robbed', isReady);
  const patch = JSON.stringify({ status: { conditions: [{ type: 'Ready', status: 'False' }] } });
  assert.is((await kubectl(['patch', 'pod', 'robbed', '--subresource=status', '--patch', patch])).code, 0);
  await until('pod', 'robbed', isReady);
  await remove('pod', 'robbed', '--now');
});

it('a pod with the name of one that was just deleted by force runs', async () => {
  await apply(podOf('twin', { args: ['echo first; while :; do sleep 0.1; done'] }));
  const first = await until('pod', 'twin', isReady);
  await remove('pod', 'twin', '--force', '--grace-period=0');
  await apply(podOf('twin', { args: ['echo second'] }));
  const second = await finished('twin');
  assert.is.not(first.metadata.uid, second.metadata.uid);
  assert.is(await logs('twin'), 'second\n');
});

it.run();
