import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ArchiveLimits, openArchive } from './archive.ts';
import type { Source } from './source.ts';
import { makeTar, tarOf, temporaryFolder, thrownBy } from './test-pictures.ts';

const it = suite('archive');
const folder = temporaryFolder();
const opened: Source[] = [];
let archives = 0;

it.after.each(async () => {
  for (const source of opened.splice(0)) await source.close();
});

async function openBytes(
  bytes: Uint8Array,
  { limits, signal = new AbortController().signal }: { limits?: ArchiveLimits; signal?: AbortSignal } = {},
) {
  const path = join(folder, `${archives++}.tar`);
  writeFileSync(path, bytes);
  const scratch = temporaryFolder();
  const stages = new Set<string>();
  const context = { scratch, signal, onProgress: (stage: string) => void stages.add(stage) };
  const source = await openArchive(path, 'pictures.tar', context, limits);
  opened.push(source);
  return { source, scratch, stages };
}

async function refusal(bytes: Uint8Array, limits?: ArchiveLimits) {
  const { reason, message } = await thrownBy(() => openBytes(bytes, { limits }));
  return { reason, message };
}

const content = Buffer.from('a picture');

it('lists files by path and reads each where it lies, in any order and again', async () => {
  const long = `${'deep/'.repeat(50)}größe-é.png`;
  const files = { 'dog/2.png': Buffer.alloc(700, 'd'), './cat/1.png': content, [long]: Buffer.alloc(1024, 'l') };
  const tar = await makeTar([
    ...Object.entries(files).map(([name, bytes]) => ({ name, content: bytes })),
    { name: 'cow/', type: 'directory' },
    { name: 'cat/.DS_Store', content },
  ]);
  for (const bytes of [tar, gzipSync(tar)]) {
    const { source, scratch } = await openBytes(bytes);
    assert.equal(
      source.files.map(({ path, sizeBytes }) => [path, sizeBytes]),
      [
        ['cat/1.png', 9],
        [long, 1024],
        ['dog/2.png', 700],
      ],
    );
    for (const at of [2, 0, 1, 0]) {
      const { path, load } = source.files[at]!;
      assert.ok((await load()).equals(files[path === 'cat/1.png' ? './cat/1.png' : path]!), path);
    }
    for (const name of ['cat', 'cow', 'deep', 'deep/deep', 'dog']) assert.ok(source.folders.includes(name), name);
    assert.equal(source.ignored, ['cat/.DS_Store']);
    // What was unpacked has no name, so that a killed process leaves nothing.
    assert.equal(readdirSync(scratch), []);
  }
});

it('refuses what would escape, links and devices by name, and unpacks nothing', async () => {
  const { source, scratch } = await openBytes(
    await makeTar([
      { name: '../escape.png', content },
      { name: 'cat/../../escape.png', content },
      { name: '/etc/passwd.png', content },
      { name: 'cat/link.png', type: 'symlink', linkname: '/etc/passwd' },
      { name: 'cat/hard.png', type: 'link', linkname: 'cat/1.png' },
      { name: 'cat/pipe.png', type: 'fifo' },
      { name: 'cat/device.png', type: 'character-device' },
      { name: `cat/${'x'.repeat(4096)}.png`, content },
      { name: './', type: 'directory' },
      { name: 'cat/1.png', content },
      { name: './cat//1.png', content: Buffer.from('another') },
    ]),
  );
  assert.equal(
    source.refused.map(({ path, reason }) => [path.slice(0, 40), reason]),
    [
      ['../escape.png', 'UnsafePath'],
      ['/etc/passwd.png', 'UnsafePath'],
      ['cat/../../escape.png', 'UnsafePath'],
      ['cat/1.png', 'DuplicatePath'],
      ['cat/device.png', 'NotAFile'],
      ['cat/hard.png', 'Link'],
      ['cat/link.png', 'Link'],
      ['cat/pipe.png', 'NotAFile'],
      [`cat/${'x'.repeat(36)}`, 'UnsafePath'],
    ],
  );
  assert.equal(
    source.files.map(({ path }) => path),
    ['cat/1.png'],
  );
  assert.ok((await source.files[0]!.load()).equals(content), 'the first of two with one path counts');
  assert.equal(readdirSync(scratch), []);
});

it('refuses a name that is no UTF-8', async () => {
  const tar = await tarOf({ 'cat/X.png': content });
  tar[4] = 0xff;
  // The checksum of a header is the sum of its bytes.
  const sum = tar.subarray(0, 512).reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 0x20 : byte), 0);
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  const { source } = await openBytes(tar);
  assert.equal(source.refused, [{ path: 'cat/�.png', reason: 'UnreadableName' }]);
  assert.equal(source.files, []);
});

it('a tar that is cut anywhere, empty or something else is named as unreadable', async () => {
  const tar = await tarOf({ 'cat/1.png': Buffer.alloc(2000, 1), 'dog/1.png': Buffer.alloc(2000, 2) });
  const firstEntry = 512 + 2048;
  for (const size of [0, 100, 512, 1000, firstEntry - 512, firstEntry, firstEntry + 300, 2 * firstEntry]) {
    const { reason, message } = await refusal(tar.subarray(0, size));
    assert.is(reason, 'UnreadableArchive', `cut to ${size} bytes`);
    assert.match(message, /^pictures\.tar is no tar that can be read: ./);
  }
  const packed = gzipSync(tar);
  for (const size of [2, 20, packed.length - 1]) {
    assert.is((await refusal(packed.subarray(0, size))).reason, 'UnreadableArchive', `gzip cut to ${size} bytes`);
  }
  packed[packed.length - 6]! ^= 1;
  assert.is((await refusal(packed)).reason, 'UnreadableArchive', 'wrong CRC');
  assert.is((await refusal(Buffer.from('no tar at all\n'.repeat(100)))).reason, 'UnreadableArchive');
  assert.is((await refusal(gzipSync('no tar either'))).reason, 'UnreadableArchive');
});

it('a small file that grows without bound is given up at the bound, and leaves nothing', async () => {
  const limits = { maxEntries: 10, maxGrowth: 10, growthAllowanceBytes: 4_000_000 };
  const bomb = gzipSync(Buffer.alloc(40_000_000));
  const { reason, message } = await refusal(bomb, limits);
  assert.is(reason, 'ArchiveTooLarge');
  assert.match(message, `pictures.tar grows from ${bomb.length} to more than ${4_000_000 + 10 * bomb.length} bytes`);
  const { source } = await openBytes(gzipSync(await tarOf({ 'cat/1.png': Buffer.alloc(3_000_000) })), { limits });
  assert.is(source.files.length, 1);
});

it('bounds the number of entries', async () => {
  const limits = { maxEntries: 2, maxGrowth: 100, growthAllowanceBytes: 1_000_000 };
  assert.is((await openBytes(await tarOf({ a: content, b: content }), { limits })).source.files.length, 2);
  assert.equal(await refusal(await tarOf({ a: content, b: content, c: content }), limits), {
    reason: 'ArchiveTooLarge',
    message: 'pictures.tar has more than 2 entries',
  });
});

it('stops when told to, and does not call the tar unreadable', async () => {
  const stop = new AbortController();
  stop.abort(new Error('told to stop'));
  const tar = await tarOf({ 'cat/1.png': content });
  for (const bytes of [tar, gzipSync(tar)]) {
    let thrown: unknown;
    await openBytes(bytes, { signal: stop.signal }).catch((error) => {
      thrown = error;
    });
    assert.ok(thrown instanceof Error && thrown.name !== 'UnreadableArchive', String(thrown));
  }
});

it('says what it is doing', async () => {
  const { stages } = await openBytes(gzipSync(await tarOf({ 'cat/1.png': content })));
  assert.equal([...stages], ['unpacking', 'listing']);
});

it('names the tar when it was cut while it is in use', async () => {
  const path = join(folder, 'shrinking.tar');
  writeFileSync(path, await tarOf({ 'cat/1.png': Buffer.alloc(5000, 1) }));
  const signal = new AbortController().signal;
  const source = await openArchive(path, path, { scratch: temporaryFolder(), signal, onProgress() {} });
  opened.push(source);
  writeFileSync(path, 'x');
  let message = '';
  await source.files[0]!.load().catch((error: Error) => {
    message = error.message;
  });
  assert.match(message, 'the tar ended early');
});

it.run();
