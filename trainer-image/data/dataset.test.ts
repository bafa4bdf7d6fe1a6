import { readdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { blobPath } from '../contract.ts';
import { type DecodedSplit, decodeSplit, openDataset } from './dataset.ts';
import { run } from './prepare.ts';
import { decodePicture } from './preprocess.ts';
import { readShard } from './shards.ts';
import {
  makeClasses,
  prepareTask,
  tarOf,
  temporaryFolder,
  testContext,
  thrownBy,
  writeFiles,
} from './test-pictures.ts';

const it = suite('dataset');
const size = { colour: 'RGB', height: 6, width: 9 } as const;

/** A dataset of 20 pictures: 16 to train on, 2 for validation, 2 for the test. */
async function makeDataset() {
  const files = await makeClasses(['cat', 'dog'], 10);
  const folder = temporaryFolder();
  writeFiles(folder, files);
  const { context } = await testContext();
  const { artifact } = await run(prepareTask(folder), context);
  return { files, context, dataset: await openDataset(context.store, artifact.digest) };
}

function readAll(split: DecodedSplit): Buffer {
  const pixels = Buffer.alloc(split.count * split.recordBytes);
  split.read(
    Array.from({ length: split.count }, (_, i) => i),
    pixels,
  );
  return pixels;
}

/** The decoded split's file in scratch. */
function decodedFile(scratch: string): string {
  const names = readdirSync(scratch);
  assert.is(names.length, 1, `scratch holds ${names}`);
  return join(scratch, names[0]!);
}

it('a decoded split has the pixels, label and path of each sample at its place', async () => {
  const { files, context, dataset } = await makeDataset();
  for (const memoryBytes of [1_000_000, 0]) {
    const split = await decodeSplit(dataset, 'train', size, { scratch: context.scratch, memoryBytes });
    assert.equal([split.count, split.height, split.width, split.channels, split.recordBytes], [16, 6, 9, 3, 162]);
    const order = [3, 15, 0, 3];
    const pixels = new Uint8Array(order.length * split.recordBytes);
    split.read(order, pixels);
    for (const [at, i] of order.entries()) {
      const path = split.paths[i]!;
      const want = await decodePicture(files[path]!, size);
      assert.ok(Buffer.from(want).equals(pixels.subarray(at * 162, (at + 1) * 162)), path);
      assert.is(dataset.index.classes[split.labels[i]!], path.split('/')[0]);
    }
    split.close();
  }
});

it('a split is decoded once for a scratch folder, and again where the file there is not whole', async () => {
  const { context, dataset } = await makeDataset();
  const { scratch } = context;
  const decode = async () => {
    const seen: number[] = [];
    const split = await decodeSplit(dataset, 'train', size, { scratch, onProgress: (done) => seen.push(done) });
    return { pixels: readAll(split), decoded: seen.length > 1 };
  };
  const first = await decode();
  assert.ok(first.decoded);
  const second = await decode();
  assert.not(second.decoded, 'it was found');
  assert.ok(second.pixels.equals(first.pixels));
  truncateSync(decodedFile(scratch), 100);
  const third = await decode();
  assert.ok(third.decoded);
  assert.ok(third.pixels.equals(first.pixels));
  decodedFile(scratch);
});

it('another size, colour or split is not taken for the one that is there', async () => {
  const { context, dataset } = await makeDataset();
  const { scratch } = context;
  await decodeSplit(dataset, 'train', size, { scratch });
  const turned = await decodeSplit(dataset, 'train', { ...size, height: 9, width: 6 }, { scratch });
  const grey = await decodeSplit(dataset, 'train', { ...size, colour: 'Grey' }, { scratch });
  const held = await decodeSplit(dataset, 'validation', size, { scratch });
  assert.equal([turned.height, grey.channels, held.count], [9, 1, 2]);
  assert.is(readdirSync(scratch).length, 4);
});

it('an empty split has no samples and can be read', async () => {
  const folder = temporaryFolder();
  writeFiles(folder, await makeClasses(['cat', 'dog'], 2));
  const { context } = await testContext();
  const { artifact } = await run(prepareTask(folder, { split: { validationPercent: 0, testPercent: 0 } }), context);
  const dataset = await openDataset(context.store, artifact.digest);
  const split = await decodeSplit(dataset, 'test', size, { scratch: context.scratch });
  assert.is(split.count, 0);
  assert.is(readAll(split).length, 0);
});

it('stops when told to, and leaves nothing half decoded', async () => {
  const { context, dataset } = await makeDataset();
  const stop = new AbortController();
  stop.abort(new Error('told to stop'));
  let message = '';
  await decodeSplit(dataset, 'train', size, { scratch: context.scratch, signal: stop.signal }).catch((error: Error) => {
    message = error.message;
  });
  assert.is(message, 'told to stop');
  assert.equal(readdirSync(context.scratch), []);
});

it('a blob that is no dataset is named', async () => {
  const { context } = await testContext();
  const text = await context.store.putBytes('no JSON');
  const json = await context.store.putBytes('{"format": "something/else"}');
  for (const { digest } of [text, json]) {
    const { reason, message } = await thrownBy(() => openDataset(context.store, digest));
    assert.equal([reason, message], ['NotADataset', `blob ${digest} is no dataset that \`prepare\` has made`]);
  }
});

it('a shard that was damaged, or holds other samples than the index says, is named', async () => {
  const { context, dataset } = await makeDataset();
  const { scratch, store } = context;
  const { index } = dataset;
  const short = { ...index, splits: { ...index.splits, train: { ...index.splits.train, samples: 15 } } };
  const long = { ...index, splits: { ...index.splits, train: { ...index.splits.train, samples: 17 } } };
  for (const [changed, how] of [
    [short, 'more'],
    [long, 'fewer'],
  ] as const) {
    const { digest } = await store.putBytes(JSON.stringify(changed));
    const error = await thrownBy(async () => decodeSplit(await openDataset(store, digest), 'train', size, { scratch }));
    assert.is(error.message, `the train split of ${digest} has ${how} samples than its index says`);
  }
  writeFileSync(join(store.root, blobPath(index.splits.train.shards[0]!.digest)), 'overwritten');
  assert.is((await thrownBy(() => decodeSplit(dataset, 'train', size, { scratch }))).reason, 'BlobDamaged');
  assert.equal(readdirSync(scratch), []);
});

it('a packed picture that cannot be decoded is named by its path in the source', async () => {
  const { context, dataset } = await makeDataset();
  const shard = await tarOf({
    'train-00000000.cls': Buffer.from('1'),
    'train-00000000.json': Buffer.from('{"path":"cat/7.png"}'),
    'train-00000000.png': Buffer.from('no picture'),
  });
  const { digest, sizeBytes } = await context.store.putBytes(shard);
  const train = { samples: 1, perClass: [0, 1], shards: [{ digest, sizeBytes, samples: 1 }] };
  const changed = { ...dataset.index, splits: { ...dataset.index.splits, train } };
  const index = await context.store.putBytes(JSON.stringify(changed));
  const opened = await openDataset(context.store, index.digest);
  const error = await thrownBy(() => decodeSplit(opened, 'train', size, { scratch: context.scratch }));
  assert.is(error.reason, 'DatasetDamaged');
  assert.match(error.message, 'cat/7.png was packed but cannot be decoded');
});

it('a shard that is no such tar is named by what is wrong with it', async () => {
  const reasonOf = async (bytes: Buffer) => {
    const { reason, message } = await thrownBy(async () => {
      for await (const _ of readShard(bytes));
    });
    assert.is(reason, 'ShardDamaged');
    return message;
  };
  assert.match(await reasonOf(Buffer.from('no tar')), 'a shard is no tar');
  assert.match(await reasonOf(await tarOf({ 'a.cls': Buffer.from('one') })), 'shard entry a.cls cannot be read');
  assert.match(await reasonOf(await tarOf({ 'a.json': Buffer.from('{}') })), 'shard entry a.json cannot be read');
});

it.run();
