import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, watch, writeFileSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { text } from 'node:stream/consumers';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EXIT, PrepareResult, TerminationMessage } from './contract.ts';
import { makeClasses, makePicture, tarOf, temporaryFolder, writeFiles } from './data/test-pictures.ts';

const it = suite('trainer process');
const main = join(import.meta.dirname, 'main.ts');
const servers: Server[] = [];

it.after.each(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/**
 * The trainer as a process of its own, with nothing of this one's environment but where programs are. `command` is bash's, in
 * which "$@" is the trainer's command line.
 */
function start(words: string[], env: NodeJS.ProcessEnv = {}, command = 'exec "$@"') {
  const child = spawn('/bin/bash', ['-c', command, 'bash', execPath, main, ...words], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.on('exit', (code, signal) => resolve({ code, signal }));
  });
  const done = Promise.all([text(child.stdout), text(child.stderr), ended]).then(
    ([stdout, stderr, { code, signal }]) => {
      return { stdout, stderr, code, signal };
    },
  );
  return { child, done };
}

const trainer = (words: string[], env?: NodeJS.ProcessEnv, command?: string) => start(words, env, command).done;

async function picturesOf(classes: string[], perClass: number): Promise<string> {
  const folder = temporaryFolder();
  writeFiles(folder, await makeClasses(classes, perClass));
  return folder;
}

const terminationOf = (file: string) => TerminationMessage.parse(JSON.parse(readFileSync(file, 'utf8')));

async function serve(answer: (response: ServerResponse) => void): Promise<string> {
  const server = createServer((_, response) => answer(response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  servers.push(server);
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const anyDigest = `sha256:${'0'.repeat(64)}`;

/** Names of the blobs of a store, each of which must hold what its name says. */
function blobsOf(store: string): string[] {
  const folder = join(store, 'blobs', 'sha256');
  const names = readdirSync(folder).sort();
  for (const name of names) assert.is(digestOf(readFileSync(join(folder, name))), `sha256:${name}`);
  return names;
}

it('prints the result where nobody asks for a termination message, however long, and leaves no temporary files', async () => {
  const classes = Array.from({ length: 400 }, (_, i) => `${String(i).padStart(3, '0')}-${'x'.repeat(200)}`);
  const picture = await makePicture(0);
  const [folder, store, temporary] = [temporaryFolder(), temporaryFolder(), temporaryFolder()];
  writeFiles(folder, Object.fromEntries(classes.map((name) => [`${name}/1.png`, picture])));
  // As into a pager: the reader is slower than the writer, who finds the pipe full.
  const pager = 'set -o pipefail; "$@" | { head -c 1; cat; }';
  const { code, stdout, stderr } = await trainer(['prepare', folder, '--store', store], { TMPDIR: temporary }, pager);
  assert.is(code, EXIT.DONE, stderr);
  assert.ok(stdout.length > 65_536, 'more than a pipe holds');
  const result = PrepareResult.parse(JSON.parse(stdout));
  assert.equal(result.classes.at(-1), { name: classes.at(-1), index: 399, train: 1, validation: 0, test: 0 });
  assert.ok(blobsOf(store).includes(result.artifact.digest.replace('sha256:', '')));
  assert.equal(readdirSync(temporary), []);
});

it('takes its task from the environment in a pod, and writes the result as the termination message', async () => {
  const root = temporaryFolder();
  const env = {
    FOVEA_TASK: JSON.stringify({
      kind: 'prepare',
      run: 'uid-1',
      source: { type: 'Path', path: await picturesOf(['cat', 'dog'], 5) },
    }),
    FOVEA_STORE: join(root, 'store'),
    FOVEA_SCRATCH: join(root, 'scratch'),
    FOVEA_TERMINATION_LOG: join(root, 'termination'),
  };
  const { code, stdout } = await trainer(['prepare'], env);
  assert.is(code, EXIT.DONE);
  assert.is(stdout, '');
  const { result, failure } = terminationOf(env.FOVEA_TERMINATION_LOG);
  assert.is(result?.kind, 'prepare');
  assert.is(failure, undefined);
  assert.equal(readdirSync(env.FOVEA_SCRATCH), []);
});

it('what the user must change ends with 64, its reason and what to do', async () => {
  const root = temporaryFolder();
  const words = ['prepare', await picturesOf(['cat'], 2), '--store', join(root, 'store')];
  const file = join(root, 'termination');
  const { code, stdout, stderr } = await trainer(words, { FOVEA_TERMINATION_LOG: file });
  assert.is(code, EXIT.USER_ERROR);
  assert.is(stdout, '');
  const { failure, result } = terminationOf(file);
  assert.is(result, undefined);
  assert.is(failure?.reason, 'OneClass');
  assert.match(failure!.message, 'found the class folder cat/ alone');
  assert.match(stderr, `OneClass: ${failure!.message}\n`);
});

it('a value that is not allowed is said with its path, itself and what is', async () => {
  const words = [
    'prepare',
    '/pictures',
    '--set',
    'split.seed=-1',
    '--set',
    'image.colour=Blue',
    '--set',
    'split.sed=1',
  ];
  const { code, stdout, stderr } = await trainer(words);
  assert.is(code, EXIT.USER_ERROR);
  assert.is(stdout, '');
  assert.match(stderr, 'InvalidTask: ');
  assert.match(stderr, 'split.seed: -1 is too small: want at least 0');
  assert.match(stderr, 'image.colour: "Blue" is not allowed: want RGB, Grey');
  assert.match(stderr, 'split.sed: there is no such field');
});

it('help goes to standard output and is no failure', async () => {
  const store = join(temporaryFolder(), 'store');
  const { code, stdout, stderr } = await trainer(['prepare', '--help', '--store', store]);
  assert.is(code, EXIT.DONE);
  assert.match(stdout, 'split.validationPercent  (integer ≥ 0 ≤ 99, default 10)');
  assert.is(stderr, '');
  assert.not(existsSync(store));
});

it('a full disk ends with 1, to be tried again, and leaves no part of a dataset', async () => {
  const root = temporaryFolder();
  const store = join(root, 'store');
  const file = join(root, 'termination');
  const folder = temporaryFolder();
  // Larger than what is written at once, so that it fails in the middle of a shard.
  const large = await sharp({ create: { width: 500, height: 500, channels: 3, background: 'red' } })
    .png({ compressionLevel: 0 })
    .toBuffer();
  writeFiles(folder, { 'cat/1.png': large, 'cat/2.png': large, 'dog/1.png': large, 'dog/2.png': large });
  const words = ['prepare', folder, '--store', store];
  const { code } = await trainer(words, { FOVEA_TERMINATION_LOG: file }, 'ulimit -f 40; exec "$@"');
  assert.is(code, EXIT.FAILURE);
  const { failure } = terminationOf(file);
  assert.is(failure?.reason, 'StoreFull');
  assert.match(failure!.message, `no space left at ${store}`);
  assert.equal(readdirSync(join(store, 'aside')), []);
});

it('what nobody thought of ends with 1 and says where it came from', async () => {
  const root = temporaryFolder();
  writeFileSync(join(root, 'a-file'), '');
  const file = join(root, 'termination');
  const { code, stderr } = await trainer(['prepare', root, '--store', join(root, 'a-file', 'store')], {
    FOVEA_TERMINATION_LOG: file,
  });
  assert.is(code, EXIT.FAILURE);
  assert.is(terminationOf(file).failure?.reason, 'InternalError');
  assert.match(stderr, /ENOTDIR.*\n +at /);
});

it('told to stop it ends with 75, says so, and takes its temporary files along', async () => {
  const [root, temporary] = [temporaryFolder(), temporaryFolder()];
  const asked = Promise.withResolvers<void>();
  const url = await serve((response) => {
    response.write('the beginning');
    asked.resolve();
  });
  const file = join(root, 'termination');
  const words = ['prepare', `${url}/a.tar`, '--set', `source.digest=${anyDigest}`, '--store', join(root, 'store')];
  const { child, done } = start(words, { FOVEA_TERMINATION_LOG: file, TMPDIR: temporary });
  await asked.promise;
  child.kill('SIGTERM');
  assert.is((await done).code, EXIT.INTERRUPTED);
  assert.equal(terminationOf(file), { failure: { reason: 'Interrupted', message: 'told to stop by SIGTERM' } });
  assert.equal(readdirSync(temporary), []);
});

it('told to stop a second time, as by a second Ctrl-C, it ends at once', async () => {
  const root = temporaryFolder();
  const asked = Promise.withResolvers<void>();
  const stopped = Promise.withResolvers<void>();
  const url = await serve((response) => {
    response.write('the beginning');
    response.on('close', stopped.resolve);
    asked.resolve();
  });
  // The last report to an intake that does not answer holds the end up for a while.
  const intake = await serve(() => {});
  const file = join(root, 'termination');
  const words = ['prepare', `${url}/a.tar`, '--set', `source.digest=${anyDigest}`, '--store', join(root, 'store')];
  const { child, done } = start(words, { FOVEA_TERMINATION_LOG: file, FOVEA_INTAKE: intake });
  await asked.promise;
  child.kill('SIGINT');
  await stopped.promise;
  child.kill('SIGINT');
  assert.is((await done).code, EXIT.INTERRUPTED);
  assert.not(existsSync(file));
});

it('killed anywhere in the middle, and run again, it makes the same dataset', async () => {
  const tar = await tarOf(await makeClasses(['cat', 'dog'], 150));
  let hold: (() => void) | undefined;
  const url = await serve((response) => {
    if (!hold) return void response.end(tar);
    response.writeHead(200, { 'content-length': tar.length });
    response.write(tar.subarray(0, tar.length / 2), hold);
  });
  const [store, scratch] = [temporaryFolder(), temporaryFolder()];
  const wordsFor = (folder: string) => {
    return ['prepare', `${url}/a.tar`, '--set', `source.digest=${digestOf(tar)}`, '--store', folder];
  };
  const words = wordsFor(store);
  const undisturbed = temporaryFolder();
  const want = PrepareResult.parse(JSON.parse((await trainer(wordsFor(undisturbed))).stdout));

  const kill = async (when: (kill: () => void) => void) => {
    const { child, done } = start(words, { FOVEA_SCRATCH: scratch });
    when(() => child.kill('SIGKILL'));
    assert.is((await done).signal, 'SIGKILL');
    const { digest } = want.artifact;
    assert.not(blobsOf(store).includes(digest.replace('sha256:', '')), 'the dataset is not there before it is done');
  };

  mkdirSync(join(store, 'aside'));
  mkdirSync(join(store, 'blobs', 'sha256'), { recursive: true });
  await kill((now) => {
    hold = now;
  });
  hold = undefined;
  // While the first shard is written.
  await kill((now) => {
    const watcher = watch(join(store, 'aside'), () => {
      watcher.close();
      now();
    });
  });
  const again = await trainer(words, { FOVEA_SCRATCH: scratch });
  assert.equal(JSON.parse(again.stdout), want);
  assert.equal(blobsOf(store), blobsOf(undisturbed));
});

it.run();
