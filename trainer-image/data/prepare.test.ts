import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, renameSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { blobPath, type PrepareResult, SPLITS, type SplitName } from '../contract.ts';
import { openDataset } from './dataset.ts';
import { run } from './prepare.ts';
import type { Report } from './report.ts';
import {
  makeClasses,
  makePicture,
  prepareTask,
  tarOf,
  temporaryFolder,
  testContext,
  thrownBy,
  writeFiles,
} from './test-pictures.ts';

const it = suite('prepare');

function folderOf(files: Record<string, Uint8Array | string>): string {
  const folder = temporaryFolder();
  writeFiles(folder, files);
  return folder;
}

/** Prepares into a store of its own. */
async function prepare(path: string, fields: Record<string, unknown> = {}) {
  const { context, stages } = await testContext();
  const result = await run(prepareTask(path, fields), context);
  const digest = result.reportURI.replace('store://blobs/sha256/', 'sha256:');
  const report: Report = JSON.parse((await context.store.read(digest)).toString());
  return { result, report, stages, context };
}

/** Paths of each split, in the order they are packed. */
async function pathsOf(result: PrepareResult, context: Awaited<ReturnType<typeof testContext>>['context']) {
  const dataset = await openDataset(context.store, result.artifact.digest);
  const paths = {} as Record<SplitName, string[]>;
  for (const split of SPLITS) {
    paths[split] = [];
    for await (const sample of dataset.samples(split)) paths[split].push(sample.path);
  }
  return paths;
}

const countsOf = ({ classes }: PrepareResult) =>
  Object.fromEntries(classes.map(({ name, train, validation, test }) => [name, [train, validation, test]]));

it('gives one digest for a folder, a tar, a gzipped tar, a tar by HTTP, in any order and again', async () => {
  const files = await makeClasses(['cat', 'dog'], 10);
  const reversed = Object.fromEntries(Object.entries(files).reverse());
  const tar = await tarOf(files);
  const archives = folderOf({ 'a.tar': tar, 'a.tar.gz': gzipSync(tar), 'reversed.tar': await tarOf(reversed) });
  const server = createServer((_, response) => response.end(tar));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/a.tar`;

  const folder = folderOf(files);
  const first = await prepare(folder);
  const digest = (await first.context.store.putBytes(tar)).digest;
  const others = [
    await prepare(folder),
    await prepare(folderOf(reversed)),
    ...(await Promise.all(['a.tar', 'a.tar.gz', 'reversed.tar'].map((name) => prepare(join(archives, name))))),
    await prepare('', { source: { type: 'HTTP', url, digest } }),
  ];
  server.close();
  for (const { result, context } of others) {
    assert.equal(result, first.result);
    assert.equal(readdirSync(context.scratch), []);
  }
  // Also into a store that has it already.
  assert.equal(await run(prepareTask(folder), first.context), first.result);
  assert.equal([...others.at(-1)!.stages], ['downloading', 'listing', 'inspecting', 'packing']);
});

it('another seed, picture or class order gives another digest', async () => {
  const files = await makeClasses(['cat', 'dog'], 10);
  const folder = folderOf(files);
  const digests = new Set([
    (await prepare(folder)).result.artifact.digest,
    (await prepare(folder, { split: { seed: 1 } })).result.artifact.digest,
    (await prepare(folder, { classes: ['dog', 'cat'] })).result.artifact.digest,
    (await prepare(folderOf({ ...files, 'cat/0.png': await makePicture(999) }))).result.artifact.digest,
  ]);
  assert.is(digests.size, 4);
});

it('the dataset holds each picture byte for byte with its label, and its index says how many', async () => {
  const files = {
    ...(await makeClasses(['cat', 'dog'], 10)),
    'dog/photo.jpeg': await makePicture(50, 'jpeg'),
    'cat/x.webp': await makePicture(51, 'webp'),
  };
  const { result, context, report } = await prepare(folderOf(files));
  const dataset = await openDataset(context.store, result.artifact.digest);
  const seen: string[] = [];
  for (const split of SPLITS) {
    const perClass = [0, 0];
    for await (const { path, label, bytes } of dataset.samples(split)) {
      assert.ok(bytes.equals(files[path as keyof typeof files]), path);
      assert.is(dataset.index.classes[label], path.split('/')[0]);
      perClass[label]! += 1;
      seen.push(path);
    }
    assert.equal(dataset.index.splits[split].perClass, perClass);
  }
  assert.equal(seen.sort(), Object.keys(files).sort());
  assert.is(result.samples, 22);
  assert.equal(result.duplicates, { count: 0, acrossSplits: 0 });
  assert.equal(report.formats, { png: 20, jpeg: 1, webp: 1 });
  assert.is(result.artifact.uri, `store://${blobPath(result.artifact.digest)}`);
});

it('mean and deviation are those of the training pixels', async () => {
  const solid = (background: string) =>
    sharp({ create: { width: 4, height: 4, channels: 3, background } })
      .png()
      .toBuffer();
  const files = {
    'train/red/1.png': await solid('#ff0000'),
    'train/blue/1.png': await solid('#0000ff'),
    'test/red/2.png': await solid('#ffffff'),
  };
  const split = { type: 'Folders', validationPercent: 0 };
  const { result } = await prepare(folderOf(files), { split });
  assert.equal(result.statistics, { mean: [0.5, 0, 0.5], std: [0.5, 0, 0.5] });
  const grey = await prepare(folderOf(files), { split, image: { colour: 'Grey' } });
  assert.is(grey.result.statistics.mean.length, 1);
});

it('sets aside each kind of unusable file under its name and reason', async () => {
  const good = await makePicture(100);
  const files: Record<string, Uint8Array | string> = {
    ...(await makeClasses(['cat', 'dog'], 3)),
    'cat/jpeg-named.png': await makePicture(101, 'jpeg'),
    'cat/cut.jpg': (await makePicture(102, 'jpeg')).subarray(0, -100),
    'cat/cut.png': good.subarray(0, -30),
    'cat/cut.webp': (await makePicture(103, 'webp')).subarray(0, -10),
    'cat/empty.png': '',
    'cat/moving.gif': await makePicture(104, 'gif'),
    'cat/notes.txt': 'not a picture',
    'dog/header.png': good.subarray(0, 15),
    'dog/large.png': await makePicture(105, 'png', [40, 40]),
    'dog/overwritten.png': Buffer.from(good).fill(0, 60, 120),
    'dog/wide.png': await sharp({ create: { width: 100, height: 30, channels: 3, background: 'red' } })
      .png()
      .toBuffer(),
    'stray.png': good,
    'README.md': 'hello',
    '.DS_Store': 'x',
    'cat/Thumbs.db': 'x',
  };
  const folder = folderOf(files);
  symlinkSync('0.png', join(folder, 'cat/link.png'));
  assert.is(spawnSync('mkfifo', [join(folder, 'cat/pipe.png')]).status, 0);
  writeFileSync(Buffer.concat([Buffer.from(`${folder}/dog/`), Buffer.from([0xff]), Buffer.from('.png')]), good);
  const { result, report } = await prepare(folder, {
    image: { maxBytes: 1000, maxPixels: 2000 },
    quarantine: { max: 14 },
  });
  const found = Object.fromEntries(report.quarantined.map(({ path, reason }) => [path, reason]));
  assert.equal(found, {
    'cat/cut.jpg': 'Truncated',
    'cat/cut.png': 'Truncated',
    'cat/cut.webp': 'Truncated',
    'cat/empty.png': 'Empty',
    'cat/link.png': 'Link',
    'cat/moving.gif': 'UnsupportedFormat',
    'cat/notes.txt': 'UnsupportedFormat',
    'cat/pipe.png': 'NotAFile',
    'dog/header.png': 'Truncated',
    'dog/large.png': 'TooLarge',
    'dog/overwritten.png': 'Unreadable',
    'dog/wide.png': 'TooManyPixels',
    'dog/�.png': 'UnreadableName',
    'stray.png': 'OutsideClass',
  });
  assert.equal(report.ignored, ['.DS_Store', 'README.md', 'cat/Thumbs.db']);
  assert.is(report.files, 21);
  assert.equal(result.quarantined, { count: 14, first: report.quarantined.slice(0, 10) });
  assert.is(result.samples, 7);
});

it('fails by name and count when more files are unusable than allowed, and writes no dataset', async () => {
  const files: Record<string, Uint8Array | string> = await makeClasses(['cat', 'dog'], 10);
  for (let i = 10; i < 22; i++) files[`cat/broken-${i}.png`] = 'x';
  const folder = folderOf(files);
  const { context } = await testContext();
  const error = await thrownBy(() => run(prepareTask(folder, { quarantine: { max: '37%' } }), context));
  assert.is(error.reason, 'TooManyQuarantined');
  assert.is(error.exitCode, 64);
  const named = Array.from({ length: 10 }, (_, i) => `cat/broken-${i + 10}.png (UnsupportedFormat)`).join(', ');
  assert.is(error.message, `12 of 32 files cannot be used, and quarantine.max 37% allows 11: ${named}, and 2 more`);
  assert.equal(readdirSync(join(context.store.root, 'blobs', 'sha256')), []);
  assert.is((await prepare(folder, { quarantine: { max: '38%' } })).result.quarantined.count, 12);
  assert.is((await prepare(folder, { quarantine: { max: 12 } })).result.quarantined.count, 12);
  assert.is((await thrownBy(() => prepare(folder, { quarantine: { max: 11 } }))).reason, 'TooManyQuarantined');
});

it('a class of which nothing can be used is named', async () => {
  const folder = folderOf({ ...(await makeClasses(['cat'], 3)), 'dog/1.png': 'x' });
  const error = await thrownBy(() => prepare(folder, { quarantine: { max: 1 } }));
  assert.is(error.reason, 'EmptyClass');
  assert.match(error.message, 'the folder of dog holds no usable picture');
});

it('draws the exact share of each class, and files that are added later move few', async () => {
  const files = await makeClasses(['cat', 'dog', 'cow'], 20);
  const split = { validationPercent: 10, testPercent: 20 };
  const before = await prepare(folderOf(files), { split });
  assert.equal(countsOf(before.result), { cat: [14, 2, 4], cow: [14, 2, 4], dog: [14, 2, 4] });
  const after = await prepare(folderOf({ ...files, 'cat/new.png': await makePicture(1000) }), { split });
  const [old, now] = [await pathsOf(before.result, before.context), await pathsOf(after.result, after.context)];
  const moved = SPLITS.flatMap((name) => old[name].filter((path) => !now[name].includes(path)));
  assert.ok(moved.length <= 2, `${moved} moved`);
  assert.ok(moved.every((path) => path.startsWith('cat/')));
});

it('folders give the splits, and validation is carved out of train where it has no folder', async () => {
  const files = Object.fromEntries(
    Object.entries(await makeClasses(['train/cat', 'train/dog', 'test/cat', 'test/dog'], 10)),
  );
  const split = { type: 'Folders', validationPercent: 20 };
  const drawn = await prepare(folderOf(files), { split });
  assert.equal(countsOf(drawn.result), { cat: [8, 2, 10], dog: [8, 2, 10] });
  const paths = await pathsOf(drawn.result, drawn.context);
  assert.ok([...paths.train, ...paths.validation].every((path) => path.startsWith('train/')));
  assert.ok(paths.test.every((path) => path.startsWith('test/')));
  const given = { ...files, 'val/cat/1.png': await makePicture(500), 'validation/dog/1.png': await makePicture(501) };
  assert.equal(countsOf((await prepare(folderOf(given), { split })).result), { cat: [10, 1, 10], dog: [10, 1, 10] });
});

it('a tar of one folder with the classes in it is read as the folder is', async () => {
  const files = await makeClasses(['pictures/cat', 'pictures/dog'], 5);
  const root = folderOf({ 'a.tar': await tarOf({ ...files, 'pictures/README': Buffer.from('hello') }) });
  const { result, report } = await prepare(join(root, 'a.tar'));
  assert.equal(
    result.classes.map(({ name }) => name),
    ['cat', 'dog'],
  );
  assert.equal(report.ignored, ['pictures/README']);
});

it('counts copies and says where they are, and drops all but the first where it is told to', async () => {
  const [one, two] = [await makePicture(200), await makePicture(201)];
  const files = {
    ...(await makeClasses(['train/cat', 'train/dog', 'test/cat'], 3)),
    'train/cat/copy-a.png': one,
    'train/cat/copy-b.png': one,
    'test/cat/copy-c.png': one,
    'train/cat/two.png': two,
    'train/dog/two.png': two,
  };
  const split = { type: 'Folders', validationPercent: 0 };
  const reported = await prepare(folderOf(files), { split });
  assert.equal(reported.result.duplicates, { count: 3, acrossSplits: 2 });
  assert.is(reported.result.samples, 14);
  assert.equal(
    reported.report.duplicates.map(({ files }) => files),
    [
      [
        { path: 'test/cat/copy-c.png', class: 'cat', split: 'test' },
        { path: 'train/cat/copy-a.png', class: 'cat', split: 'train' },
        { path: 'train/cat/copy-b.png', class: 'cat', split: 'train' },
      ],
      [
        { path: 'train/cat/two.png', class: 'cat', split: 'train' },
        { path: 'train/dog/two.png', class: 'dog', split: 'train' },
      ],
    ],
  );
  const dropped = await prepare(folderOf(files), { split, duplicates: 'Drop' });
  assert.equal(dropped.result.duplicates, { count: 3, acrossSplits: 0 });
  assert.equal(countsOf(dropped.result), { cat: [4, 0, 4], dog: [3, 0, 0] });
  assert.equal(dropped.report.duplicates[0]!.files, [
    { path: 'test/cat/copy-c.png', class: 'cat', split: 'test' },
    { path: 'train/cat/copy-a.png', class: 'cat' },
    { path: 'train/cat/copy-b.png', class: 'cat' },
  ]);
});

it('a source that is not there is named', async () => {
  const path = join(temporaryFolder(), 'pictures');
  const error = await thrownBy(() => prepare(path));
  assert.equal([error.reason, error.message], ['SourceNotFound', `source.path: ${path} cannot be opened (ENOENT)`]);
});

it('a picture that is changed, removed or made a link while it is packed fails the attempt, which can be repeated', async () => {
  const changes: ((path: string) => void)[] = [
    (path) => writeFileSync(path, 'another'),
    unlinkSync,
    (path) => {
      renameSync(path, `${path}.moved`);
      symlinkSync(`${path}.moved`, path);
    },
  ];
  for (const change of changes) {
    const folder = folderOf(await makeClasses(['cat', 'dog'], 2));
    const { context } = await testContext();
    let changed = false;
    const { report } = context.reporter;
    context.reporter.report = (progress) => {
      report(progress);
      if (progress.stage !== 'inspecting' || progress.percent < 100 || changed) return;
      changed = true;
      change(join(folder, 'dog/1.png'));
    };
    const error = await thrownBy(() => run(prepareTask(folder), context));
    assert.is(error.reason, 'SourceChanged');
    assert.is(error.message, 'dog/1.png was changed while the dataset was being prepared');
    assert.is(error.exitCode, 1);
  }
});

it('stops when told to, with nothing left aside', async () => {
  const stop = new AbortController();
  const { context } = await testContext(stop.signal);
  const { report } = context.reporter;
  context.reporter.report = (progress) => {
    report(progress);
    if (progress.stage === 'packing') stop.abort(new Error('told to stop'));
  };
  let message = '';
  await run(prepareTask(folderOf(await makeClasses(['cat', 'dog'], 20))), context).catch((error: Error) => {
    message = error.message;
  });
  assert.is(message, 'told to stop');
  assert.equal(readdirSync(join(context.store.root, 'aside')), []);
});

it('a class name that needs no escape elsewhere keeps all its characters', async () => {
  const names = ['größe & "co"', '猫'];
  const { result, context } = await prepare(folderOf(await makeClasses(names, 3)));
  assert.equal(
    result.classes.map(({ name }) => name),
    names,
  );
  const { digest } = result.artifact;
  assert.equal(JSON.parse(readFileSync(join(context.store.root, blobPath(digest)), 'utf8')).classes, names);
});

it.run();
