import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { PrepareTask, TrainTask } from './contract.ts';
import { temporaryFolder } from './data/test-pictures.ts';
import { UserError } from './errors.ts';
import { type Invocation, readInvocation } from './task.ts';

const it = suite('task');
const digest = `sha256:${'a'.repeat(64)}`;

async function read(words: string[], env: NodeJS.ProcessEnv = {}): Promise<Invocation> {
  const invocation = await readInvocation(words, env);
  if (typeof invocation === 'string') throw new Error(`only help: ${invocation}`);
  return invocation;
}

async function refusal(words: string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
  try {
    await readInvocation(words, env);
  } catch (error) {
    assert.instance(error, UserError);
    return (error as Error).message;
  }
  throw new Error('it was accepted');
}

it('takes a path or a URL as the source', async () => {
  const local = (await read(['prepare', 'pictures'])).task as PrepareTask;
  assert.equal(local.source, { type: 'Path', path: resolve('pictures') });
  assert.is(local.run, 'local');
  const remote = await read(['prepare', 'https://example.org/a.tar', '--set', `source.digest=${digest}`]);
  assert.equal((remote.task as PrepareTask).source, { type: 'HTTP', url: 'https://example.org/a.tar', digest });
});

it('sets fields by path, their values read as YAML, over those of a file', async () => {
  const file = join(temporaryFolder(), 'task.yaml');
  writeFileSync(file, 'model: {name: ResNet20}\nrecipe: {epochs: 7, batchSize: 64}\n');
  const words = [
    'train',
    digest,
    '--task',
    file,
    '--set',
    'recipe.epochs=2',
    '--set',
    'recipe.optimizer.sgd.nesterov=false',
  ];
  const task = (await read(words)).task as TrainTask;
  assert.is(task.dataset.digest, digest);
  assert.is(task.recipe.epochs, 2);
  assert.is(task.recipe.batchSize, 64);
  assert.is(task.recipe.optimizer.sgd?.nesterov, false);
  const classes = (await read(['prepare', 'x', '--set', 'classes=[cat, "7"]'])).task as PrepareTask;
  assert.equal(classes.classes, ['cat', '7']);
});

it('takes the task and the store from the environment in a pod', async () => {
  const env = {
    FOVEA_TASK: JSON.stringify({ kind: 'prepare', run: 'uid-1', source: { type: 'Path', path: '/pictures' } }),
    FOVEA_STORE: '/store',
  };
  const { task, store } = await read(['prepare'], env);
  assert.is((task as PrepareTask).run, 'uid-1');
  assert.is(store, '/store');
  assert.match(await refusal(['train'], env), 'kind: the task is for "prepare"');
});

it('names the path, the value and what is allowed', async () => {
  const message = await refusal([
    'train',
    '--set',
    'model.name=VGG',
    '--set',
    'recipe.epochs=0',
    '--set',
    'recipe.batchSize=many',
    '--set',
    'recipe.optimiser={}',
  ]);
  assert.match(message, 'dataset: is required');
  assert.match(message, 'model.name: "VGG" is not allowed: want ResNet18, ResNet20');
  assert.match(message, 'recipe.epochs: 0 is too small: want at least 1');
  assert.match(message, 'recipe.batchSize: "many" is not of type number');
  assert.match(message, 'recipe.optimiser: there is no such field');
  assert.match(await refusal(['prepare', 'https://example.org/a.tar']), 'source.digest: is required');
});

it('refuses words that it does not know', async () => {
  assert.match(await refusal([]), 'no command');
  assert.match(await refusal(['prepaer']), '"prepaer" is no command');
  assert.match(await refusal(['prepare', 'a', 'b']), '"b" is one word too many');
  assert.match(await refusal(['prepare', '--sett', 'a=b']), '--sett');
  assert.match(await refusal(['prepare', '--set', 'epochs']), 'want path=value');
  assert.match(
    await refusal(['prepare', 'a', '--set', 'run.x=1', '--set', 'run=2', '--set', 'run.x=3']),
    'has no fields',
  );
});

it('does not let a field reach the prototype of all objects', async () => {
  await refusal(['prepare', 'a', '--set', '__proto__.polluted=1']);
  assert.is(({} as Record<string, unknown>).polluted, undefined);
});

it('lists every field with type, default and description', async () => {
  const help = (await readInvocation(['prepare', '--help'], {})) as string;
  assert.match(help, 'split.validationPercent  (integer ≥ 0 ≤ 99, default 10)');
  assert.match(help, 'source.type=HTTP');
  assert.match(help, 'Byte-identical pictures');
  const general = (await readInvocation(['--help'], {})) as string;
  for (const command of ['prepare', 'train', 'export', 'serve']) assert.match(general, command);
});

it.run();
