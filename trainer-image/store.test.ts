import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { blobPath } from './contract.ts';
import { temporaryFolder } from './data/test-pictures.ts';
import type { TrainerError } from './errors.ts';
import { artifactOf, openStore, readDocument, writeDocument } from './store.ts';

const it = suite('store');

const digestOf = (content: string | Buffer) => `sha256:${createHash('sha256').update(content).digest('hex')}`;

/** What `action` throws. */
async function failure(action: () => Promise<unknown>): Promise<TrainerError> {
  try {
    await action();
  } catch (error) {
    return error as TrainerError;
  }
  throw new Error('nothing was thrown');
}

it('keeps bytes, files and streams under their digest and reads them back', async () => {
  const root = temporaryFolder();
  const store = await openStore(root);
  const large = Buffer.alloc(3_000_000, 'fovea');
  writeFileSync(join(root, 'a-file'), large);
  const fromBytes = await store.putBytes('hello');
  const fromFile = await store.putFile(join(root, 'a-file'));
  const fromStream = await store.putStream([large.subarray(0, 7), large.subarray(7)]);
  assert.equal(fromBytes, { digest: digestOf('hello'), sizeBytes: 5 });
  assert.equal(fromFile, { digest: digestOf(large), sizeBytes: large.length });
  assert.equal(fromStream, fromFile);
  assert.equal((await store.read(fromFile.digest)).equals(large), true);
  assert.is(readFileSync(await store.path(fromBytes.digest), 'utf8'), 'hello');
  assert.is(artifactOf(fromBytes).uri, `store://${blobPath(fromBytes.digest)}`);
  assert.equal(readdirSync(join(root, 'aside')), []);
});

it('does not write a blob again that is there', async () => {
  const root = temporaryFolder();
  const { digest } = await (await openStore(root)).putBytes('once');
  const before = statSync(join(root, blobPath(digest)));
  const again = await openStore(root);
  await again.putBytes('once');
  await again.putStream([Buffer.from('on'), Buffer.from('ce')]);
  assert.is(statSync(join(root, blobPath(digest))).ino, before.ino);
});

it('names a blob that is missing or damaged, and heals it when its content comes again', async () => {
  const root = temporaryFolder();
  const { digest } = await (await openStore(root)).putBytes('precious');
  const store = await openStore(root);
  const absent = digestOf('absent');
  for (const action of [() => store.read(absent), () => store.path(absent)]) {
    const error = await failure(action);
    assert.is(error.reason, 'BlobMissing');
    assert.match(error.message, absent);
  }
  writeFileSync(join(root, blobPath(digest)), 'preciouS');
  for (const action of [() => store.read(digest), () => store.path(digest)]) {
    const error = await failure(action);
    assert.is(error.reason, 'BlobDamaged');
    assert.match(error.message, digest);
  }
  await store.putBytes('precious');
  assert.is((await store.read(digest)).toString(), 'precious');
});

it('refuses digests and run names that would lead elsewhere', async () => {
  const store = await openStore(temporaryFolder());
  assert.is((await failure(() => store.read('sha256:../../../etc/passwd'))).reason, 'InvalidDigest');
  for (const run of ['..', '', 'a/b', '.hidden']) {
    assert.is((await failure(() => store.runFolder(run))).reason, 'InvalidRun');
  }
  assert.is(existsSync(await store.runFolder('3f6c-a.1')), true);
});

it('leaves nothing aside when a stream fails', async () => {
  const root = temporaryFolder();
  const store = await openStore(root);
  async function* broken() {
    yield Buffer.from('some');
    throw new Error('the source broke');
  }
  assert.is((await failure(() => store.putStream(broken()))).message, 'the source broke');
  assert.equal(readdirSync(join(root, 'aside')), []);
  assert.equal(readdirSync(join(root, 'blobs/sha256')), []);
});

it('says that the volume is full where the system says ENOSPC', async () => {
  const store = await openStore(temporaryFolder());
  async function* full(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('some');
    // Every write to /dev/full answers ENOSPC.
    writeFileSync('/dev/full', 'x');
  }
  const error = await failure(() => store.putStream(full()));
  assert.is(error.reason, 'StoreFull');
  assert.match(error.message, 'enlarge');
});

it('writes documents whole, and tells a missing one from a damaged one', async () => {
  const folder = temporaryFolder();
  const path = join(folder, 'journal.json');
  assert.is(await readDocument(path), undefined);
  await writeDocument(path, { step: 1 });
  await writeDocument(path, { step: 2 });
  assert.equal(await readDocument(path), { step: 2 });
  assert.equal(readdirSync(folder), ['journal.json']);
  writeFileSync(path, '{"step":');
  const error = await failure(() => readDocument(path));
  assert.is(error.reason, 'DocumentDamaged');
  assert.match(error.message, path);
});

it('a writer that is killed leaves no blob, and what it left aside goes after a day', async () => {
  const root = temporaryFolder();
  const program = `
    import { openStore } from ${JSON.stringify(new URL('./store.ts', import.meta.url).href)};
    const store = await openStore(${JSON.stringify(root)});
    async function* endless() {
      for (;;) { yield Buffer.alloc(2_000_000); process.stdout.write('x'); }
    }
    await store.putStream(endless());`;
  const child = spawn(execPath, ['--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  assert.equal(readdirSync(join(root, 'blobs/sha256')), []);
  const left = readdirSync(join(root, 'aside'));
  assert.is(left.length, 1);
  await openStore(root);
  assert.equal(readdirSync(join(root, 'aside')), left, 'another writer may still be at it');
  utimesSync(join(root, 'aside', left[0]!), 0, 0);
  await openStore(root);
  assert.equal(readdirSync(join(root, 'aside')), []);
});

it.run();
