import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { env } from 'node:process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { becomesFree, freeNetworks, freePorts, isFree, networksOf } from './ports.ts';
import { clusterNames, folderOf, newRecord, readRecord, writeRecord } from './record.ts';

const it = suite('cluster record');

it.before.each(async () => {
  env.XDG_STATE_HOME = await mkdtemp(join(tmpdir(), 'fovea-record-'));
});
it.after.each(() => rm(env.XDG_STATE_HOME!, { recursive: true }));

it('is read as it was written', async () => {
  const record = await newRecord('one');
  await writeRecord(record);
  assert.equal(await readRecord('one'), record);
  assert.equal(await clusterNames(), ['one']);
  assert.is(await readRecord('two'), undefined);
});

it('gives clusters ports and networks that no other one keeps', async () => {
  const seen = new Set<number | string>();
  const names = Array.from({ length: 20 }, (_, i) => `cluster-${i}`);
  for (const name of names) {
    const record = await newRecord(name);
    await writeRecord(record);
    for (const value of [...Object.values(record.ports), ...Object.values(record.networks)]) {
      assert.not(seen.has(value), `${value}`);
      seen.add(value);
    }
  }
});

it('names the file and the field when it is damaged', async () => {
  await mkdir(folderOf('broken'), { recursive: true });
  await writeFile(join(folderOf('broken'), 'cluster.json'), '{"name":"broken","ports":{"etcd":"many"}}');
  const error: Error = await readRecord('broken').then(
    () => new Error('was read'),
    (e) => e,
  );
  assert.match(error.message, /broken\/cluster\.json can't be read: [\s\S]*ports\.etcd/);
});

it('is not hindered by the damaged record of another cluster', async () => {
  await mkdir(folderOf('broken'), { recursive: true });
  await writeFile(join(folderOf('broken'), 'cluster.json'), '{');
  assert.is((await newRecord('whole')).name, 'whole');
});

it('refuses names that could leave the folder of clusters, or be no label', () => {
  for (const name of ['', '..', 'a/b', 'A', '-a', 'a-', 'a'.repeat(41)]) assert.throws(() => folderOf(name), /--name=/);
  assert.ok(folderOf('a-1').endsWith('/fovea/clusters/a-1'));
});

it('sees a port on which somebody listens as taken', async () => {
  const [port] = (await freePorts(1)) as [number];
  assert.is(await isFree(port), true);
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  assert.is(await isFree(port), false);
  server.close();
});

it('a port whose holder is just ending is waited for, and one that stays taken is not free', async () => {
  const [port] = await freePorts(1);
  const holder = createServer().listen(port, '127.0.0.1');
  await once(holder, 'listening');
  assert.is(await becomesFree(port!), false);
  const soon = becomesFree(port!);
  holder.close();
  assert.is(await soon, true);
});

it('passes over a network in which somebody listens', async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, `${networksOf(7).pods}.1.2`, resolve));
  const found = await freeNetworks(7, []);
  server.close();
  assert.is.not(found.pods, networksOf(7).pods);
});

it('keeps all pairs of networks within 127/8 and apart', () => {
  const all = Array.from({ length: 90 }, (_, n) => networksOf(n)).flatMap(({ pods, services }) => [pods, services]);
  assert.is(new Set(all).size, 180);
  for (const network of all) assert.ok(Number(network.slice('127.'.length)) <= 255, network);
});

it.run();
