// timeout: 300
import { readFile } from 'node:fs/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parse, stringify } from 'yaml';
import { RESOURCES } from '../../operator/api/object.ts';
import { command } from './command.ts';
import { writeWhole } from './files.ts';
import { condition, isTrue, type Line, type LineObject, object, pictures, startLine } from './line-fixture.ts';
import { withoutRoot } from './unprivileged.ts';

await withoutRoot(import.meta.filename);

const it = suite('failures of pods');

/** The image of the pods that the operator makes. */
const TRAINER = 'fovea/trainer:dev';
/** Bytes of a store that is full: room for folders, not for a shard. */
const FULL = 16_384;

/** Runs a program that may mount what only it sees: a small volume over the store, so that the kernel itself says it is full. */
const OWN_MOUNTS = ['unshare', '--user', '--map-root-user', '--mount'];
const [unshare, ...flags] = OWN_MOUNTS;
/** A machine may forbid user namespaces. */
const withOwnMounts = await command(unshare, [...flags, 'true']).then(
  () => it,
  () => it.skip,
);

let line: Line;
/** The command that stands for the image. */
let trainer: string[];
let source: { url: string; digest: string };

it.before(async () => {
  line = await startLine(`failures-${process.pid}`);
  trainer = parse(await readFile(line.images, 'utf8')).images[TRAINER].command;
  source = line.serve(await pictures(10));
});
it.after(async () => {
  await line[Symbol.asyncDispose]();
});

/** Lets another command stand for the trainer's image; undefined: none. */
async function standIn(argv: string[] | undefined): Promise<void> {
  const file = parse(await readFile(line.images, 'utf8'));
  if (argv) file.images[TRAINER] = { ...file.images['fovea/operator:dev'], command: argv };
  else delete file.images[TRAINER];
  await writeWhole(line.images, stringify(file));
}

/** Applies a Dataset in a namespace of its own and waits until it says this of its pod. */
async function failing(namespace: string, reason: string, spec: object = {}): Promise<LineObject> {
  await line.namespace(namespace);
  await line.apply(namespace, object('Dataset', 'd', { source: { type: 'HTTP', http: source }, ...spec }));
  const found = await line.until('datasets', namespace, 'd', isTrue('Reconciling', reason));
  const { lastFailure } = found.status ?? {};
  assert.is(lastFailure?.reason, reason);
  assert.is(condition(found, 'Ready')?.status, 'False');
  assert.is(condition(found, 'Stalled'), undefined);
  // The pod is there to be looked at, and kubectl describe tells it all.
  await line.kubectl('-n', namespace, 'get', 'pod', lastFailure?.pod ?? 'none');
  const described = await line.kubectl('-n', namespace, 'describe', 'dataset', 'd');
  assert.match(described.replaceAll(/\s+/g, ' '), lastFailure?.message.replaceAll(/\s+/g, ' ') ?? '');
  return found;
}

async function packed(namespace: string): Promise<LineObject> {
  const found = await line.until('datasets', namespace, 'd', isTrue('Ready', 'Packed'));
  assert.is(found.status?.lastFailure, undefined);
  return found;
}

it('an image that cannot be pulled is named, and all goes on when it can', async () => {
  await standIn(undefined);
  const { status } = await failing('image', 'ImagePullBackOff');
  assert.match(
    status?.lastFailure?.message ?? '',
    /^Pod \S+ cannot pull image fovea\/trainer:dev: image "fovea\/trainer:dev" is not mapped .* Correct the operator's FOVEA_TRAINER_IMAGE, or give the registry's Secret in spec\.pod\.imagePullSecrets\.$/,
  );
  await standIn(trainer);
  await packed('image');
});

it('a pod that ran out of memory tells its limit and the field to raise, and a raised one is used', async () => {
  const { status } = await failing('memory', 'OOMKilled', { resources: { limits: { memory: '24Mi' } } });
  assert.match(
    status?.lastFailure?.message ?? '',
    /^Pod \S+ ran out of memory: its limit is 24Mi\. Raise spec\.resources\.limits\.memory\.$/,
  );
  assert.is(status?.lastFailure?.exitCode, 137);
  await line.client.patch(RESOURCES.datasets, 'memory', 'd', { spec: { resources: { limits: { memory: '2Gi' } } } });
  const { status: mended } = await packed('memory');
  assert.is(mended?.attempt, 2);
});

it('a program that ends badly is quoted with its last lines, and tried again', async () => {
  const script = "console.error('all was well'); console.error('until the cause'); process.exit(7)";
  await standIn([trainer[0], '-e', script]);
  const { status } = await failing('exit', 'Error');
  const { pod, exitCode, message = '' } = status?.lastFailure ?? {};
  assert.is(message, `Pod ${pod} ended with exit code 7. Its last lines: all was well\nuntil the cause`);
  assert.is(exitCode, 7);
  await standIn(trainer);
  const { status: done } = await packed('exit');
  assert.is(done?.attempt, 1, 'the Job itself tried again');
});

withOwnMounts('a store that is full is named with its claim and size, and filled when there is room', async () => {
  const mount = `mount -t tmpfs -o size=${FULL} none "$FOVEA_STORE" && exec "$@"`;
  await standIn([...OWN_MOUNTS, 'sh', '-c', mount, 'sh', ...trainer]);
  const { status } = await failing('full', 'StoreFull');
  const { message = '', exitCode } = status?.lastFailure ?? {};
  assert.match(message, /^Pod \S+: no space left at \S+ \(ENOSPC\): /);
  assert.match(
    message,
    /The store is PersistentVolumeClaim fovea-store, of 1Gi: raise its spec\.resources\.requests\.storage/,
  );
  assert.is(exitCode, 1);
  await standIn(trainer);
  await packed('full');
});

it.run();
