import { mkdtempSync, readdirSync, rmSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { TrainTask } from '../contract.ts';
import { artifactOf, openStore } from '../store.ts';
import { JournalTaken, openJournal } from './journal.ts';
import type { TrainingState } from './state-file.ts';

const it = suite('run journal');
const root = mkdtempSync(join(tmpdir(), 'journal-'));
it.after(() => rmSync(root, { recursive: true }));

const taskOf = (run: string, recipe: object = {}) =>
  TrainTask.parse({
    kind: 'train',
    run,
    dataset: { digest: `sha256:${'0'.repeat(64)}` },
    model: { name: 'ResNet20' },
    recipe,
  });
const stateAt = (step: number): TrainingState => ({
  position: { step, epoch: step, lossSum: 0.1 + 0.2 },
  weights: new Map([['fc.weight', { shape: [2], data: Float32Array.of(step, 0.1) }]]),
  optimizer: new Map([['momentum.fc.weight', { shape: [2], data: Float32Array.of(-step, 0) }]]),
});
const metrics = [{ name: 'ValidationAccuracy', value: 0.5 }];

/** A journal of a new run, and how to open it again as another process would. */
async function newRun(run: string) {
  const store = await openStore(root);
  const reopen = () => openJournal(store, taskOf(run));
  return { store, folder: join(root, 'runs', run), journal: await reopen(), reopen };
}

it('resumes from the newest state, bit by bit', async () => {
  const { journal, reopen } = await newRun('newest');
  assert.is(await journal.resume(() => {}), undefined);
  for (const step of [1, 2, 3]) await journal.save(stateAt(step), 2);
  assert.equal(await (await reopen()).resume(() => {}), stateAt(3));
});

it('keeps as many states as asked, and the best model that each of them names', async () => {
  const { journal, folder } = await newRun('keep');
  for (const step of [1, 2, 3, 4]) {
    const best = await journal.saveBest(step, metrics, [Buffer.from(`model ${step}`)]);
    await journal.save({ ...stateAt(step), position: { step, epoch: step, lossSum: 0, best } }, 2);
  }
  assert.equal(readdirSync(folder).sort(), [
    'best-3.safetensors',
    'best-4.safetensors',
    'journal.json',
    'state-3-3.safetensors',
    'state-4-4.safetensors',
  ]);
});

it('goes back to the state before when the newest, or its best model, is cut off, changed or missing', async () => {
  const damages: [string, (folder: string) => void][] = [
    ['cut', (folder) => truncateSync(join(folder, 'state-2-2.safetensors'), 50)],
    ['changed', (folder) => writeFileSync(join(folder, 'state-2-2.safetensors'), 'x', { flag: 'a' })],
    ['missing', (folder) => unlinkSync(join(folder, 'state-2-2.safetensors'))],
    ['best', (folder) => truncateSync(join(folder, 'best-2.safetensors'), 3)],
  ];
  for (const [name, damage] of damages) {
    const { journal, folder, reopen } = await newRun(`damage-${name}`);
    for (const step of [1, 2]) {
      const best = await journal.saveBest(step, metrics, [Buffer.from(`model ${step}`)]);
      await journal.save({ ...stateAt(step), position: { step, epoch: step, lossSum: 0, best } }, 3);
    }
    damage(folder);
    const notes: string[] = [];
    const resumed = await (await reopen()).resume((line) => notes.push(line));
    assert.is(resumed?.position.step, 1, name);
    assert.match(notes[0]!, /state-2-2\.safetensors/);
  }
});

it('ignores what a killed process left aside', async () => {
  const { journal, folder, reopen } = await newRun('aside');
  await journal.save(stateAt(1), 3);
  writeFileSync(join(folder, 'state-2-2.safetensors.1234.aside'), 'half');
  writeFileSync(join(folder, 'state-2-2.safetensors'), 'whole, but the journal does not name it');
  assert.is((await (await reopen()).resume(() => {}))?.position.step, 1);
});

it('finds the result of a run that has ended, unless its model is gone from the store', async () => {
  const { store, journal, folder, reopen } = await newRun('ended');
  await journal.save(stateAt(1), 3);
  const blob = await store.putBytes('the model');
  await journal.finish({
    kind: 'train',
    artifact: artifactOf(blob),
    checkpoints: [],
    preprocessing: { digest: blob.digest },
    epochs: 1,
    metrics,
  });
  assert.equal(readdirSync(folder), ['journal.json']);
  assert.is((await (await reopen()).finished())?.artifact.digest, blob.digest);
  unlinkSync(join(root, 'blobs/sha256', blob.digest.slice(7)));
  const another = await openJournal(await openStore(root), taskOf('ended'));
  assert.is(await another.finished(), undefined);
});

it('refuses the folder of a run with another recipe, and takes one with other threads', async () => {
  const { store, journal } = await newRun('other');
  await journal.save(stateAt(1), 3);
  await openJournal(store, { ...taskOf('other'), threads: 7 });
  try {
    await openJournal(store, taskOf('other', { seed: 1 }));
    assert.unreachable();
  } catch (error) {
    assert.is((error as Error).name, 'RunOfAnotherTask');
  }
});

it('lets the leader of a newer ring take over, and the one before write no more', async () => {
  const { journal, reopen } = await newRun('fenced');
  await journal.enter(1, true);
  await journal.save(stateAt(1), 3);
  const newer = await reopen();
  await newer.enter(2, true);
  const refused = [
    () => journal.save(stateAt(2), 3),
    () => journal.saveBest(1, metrics, [Buffer.from('model')]),
    () => journal.enter(1, true),
  ];
  for (const write of refused) {
    await write().then(
      () => assert.unreachable(),
      (error) => assert.instance(error, JournalTaken),
    );
  }
  await newer.save(stateAt(3), 3);
  assert.equal(await journal.resume(() => {}), stateAt(3));
  await journal.enter(3, true);
  await journal.save(stateAt(4), 3);
});

it.run();
