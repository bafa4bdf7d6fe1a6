import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { createInterface } from 'node:readline';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { digestOf, makeFolder, writeWhole } from './files.ts';
import { locked } from './lock.ts';
import { tail } from './logs.ts';

const it = suite('files');
let dir: string;

it.before.each(async () => {
  dir = await mkdtemp(join(tmpdir(), 'fovea-files-'));
});
it.after.each(() => rm(dir, { recursive: true }));

it('writes a file only when it says something else, and leaves nothing beside it', async () => {
  const path = join(dir, 'file');
  assert.is(await writeWhole(path, 'a'), true);
  const { ino } = await stat(path);
  assert.is(await writeWhole(path, 'a'), false);
  assert.is((await stat(path)).ino, ino);
  assert.is(await writeWhole(path, 'b'), true);
  assert.equal(await readdir(dir), ['file']);
  assert.is((await stat(path)).mode & 0o777, 0o600);
});

it('shows a folder only when all of it is there', async () => {
  const path = join(dir, 'folder');
  const failing = makeFolder(path, async (aside) => {
    await writeFile(join(aside, 'first'), '1');
    throw new Error('no second');
  });
  assert.is(await failing.catch((error) => error.message), 'no second');
  assert.not((await readdir(dir)).includes('folder'));
  await makeFolder(path, (aside) => writeFile(join(aside, 'second'), '2'));
  assert.equal(await readdir(path), ['second']);
  assert.equal(await readdir(dir), ['folder']);
});

it('digests names and contents of what counts, and nothing else', async () => {
  const digest = () => digestOf(dir, (path) => path.endsWith('.go'));
  await mkdir(join(dir, 'inner'));
  await writeFile(join(dir, 'inner', 'a.go'), 'package a');
  const first = await digest();
  assert.match(first, /^[0-9a-f]{16}$/);
  await writeFile(join(dir, 'README.md'), 'words');
  assert.is(await digest(), first);
  await writeFile(join(dir, 'inner', 'a.go'), 'package b');
  const second = await digest();
  assert.is.not(second, first);
  await rm(join(dir, 'inner', 'a.go'));
  await writeFile(join(dir, 'inner', 'b.go'), 'package b');
  assert.is.not(await digest(), second);
});

it('does the work of two callers for one path one after the other', async () => {
  const events: string[] = [];
  const work = (name: string) => () =>
    new Promise<void>((resolve) => {
      events.push(`${name} begins`);
      setImmediate(() => {
        events.push(`${name} ends`);
        resolve();
      });
    });
  await Promise.all(['a', 'b', 'c'].map((name) => locked(dir, work(name))));
  assert.is(events.length, 6);
  for (let i = 0; i < 6; i += 2) assert.is(events[i + 1], events[i]!.replace('begins', 'ends'));
});

it('gives a lock back when its work fails', async () => {
  await locked(dir, () => Promise.reject(new Error('failed'))).catch(() => {});
  assert.is(await locked(dir, async () => 'done'), 'done');
});

it('gives a lock on when the process that held it is killed', async () => {
  const script = `import { locked } from ${JSON.stringify(join(import.meta.dirname, 'lock.ts'))};
    await locked(process.argv[1], () => { console.log('held'); return new Promise(() => setInterval(() => {}, 1000)); });`;
  const holder = spawn(execPath, ['--input-type=module', '--eval', script, dir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(createInterface({ input: holder.stdout }), 'line');
  let waited = false;
  const done = locked(
    dir,
    async () => 'done',
    () => {
      waited = true;
      holder.kill('SIGKILL');
    },
  );
  assert.is(await done, 'done');
  assert.ok(waited);
});

it('shows the last lines of a log, however long', async () => {
  const path = join(dir, 'log');
  await writeFile(path, `${'x'.repeat(3000)}\nlast but one\nlast\n`);
  assert.is(await tail(path, 2), 'last but one\nlast');
  assert.is((await tail(path, 3)).split('\n')[0]!.length <= 501, true);
  assert.is(await tail(join(dir, 'absent'), 2), '');
  assert.is((await readFile(path, 'utf8')).length, 3000 + 1 + 18);
});

it.run();
