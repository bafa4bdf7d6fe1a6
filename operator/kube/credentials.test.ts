import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { stringify } from 'yaml';
import { credentialsOf, loadConfig } from './credentials.ts';

const it = suite('credentials');

let folder: string;
it.before.each(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'fovea-credentials-'));
});
it.after.each(async () => {
  await rm(folder, { recursive: true });
});

async function kubeconfig(user: object): Promise<string> {
  const file = path.join(folder, 'kubeconfig');
  await writeFile(
    file,
    stringify({
      clusters: [{ name: 'c', cluster: { server: 'https://127.0.0.1:1/' } }],
      users: [{ name: 'u', user }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'x',
    }),
  );
  return file;
}

async function authorization(user: object): Promise<string | undefined> {
  const credentials = credentialsOf(loadConfig(await kubeconfig(user)));
  const { headers } = await credentials.access();
  await credentials.close();
  return headers.authorization;
}

it('show the token of a kubeconfig that names a file for it, relative to itself as kubectl has it', async () => {
  await writeFile(path.join(folder, 'token'), 'abc');
  assert.is(await authorization({ tokenFile: 'token' }), 'Bearer abc');
  assert.is(await authorization({ tokenFile: path.join(folder, 'token') }), 'Bearer abc');
});

it('prefer a token that stands in the kubeconfig to one in a file, as kubectl does', async () => {
  await writeFile(path.join(folder, 'token'), 'abc');
  assert.is(await authorization({ token: 'here', tokenFile: 'token' }), 'Bearer here');
});

it('are read again from their file as soon as the server has refused them', async () => {
  await writeFile(path.join(folder, 'token'), 'old\n');
  const credentials = credentialsOf(loadConfig(await kubeconfig({ tokenFile: 'token' })));
  const shown = async () => (await credentials.access()).headers.authorization;
  assert.is(await shown(), 'Bearer old');
  await writeFile(path.join(folder, 'token'), 'new\n');
  assert.is(await shown(), 'Bearer old', 'not for each request');
  credentials.refused();
  assert.is(await shown(), 'Bearer new');
  await credentials.close();
});

it('say which context names no cluster', async () => {
  const file = path.join(folder, 'empty');
  await writeFile(file, stringify({ 'current-context': 'nowhere', contexts: [], clusters: [], users: [] }));
  assert.throws(() => credentialsOf(loadConfig(file)), /context "nowhere" names no cluster: set KUBECONFIG/);
});

it.run();
