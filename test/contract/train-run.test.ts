// timeout: 240
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EXIT, type Progress, TrainTask } from '../../trainer-image/contract.ts';
import { TrainerError, UserError } from '../../trainer-image/errors.ts';
import { openStore } from '../../trainer-image/store.ts';
import { run } from '../../trainer-image/train/command.ts';
import { decodeModel } from '../../trainer-image/train/model-file.ts';
import { eventually } from '../eventually.ts';
import { startTrainer } from '../workers.ts';
import { packBars } from './bars-dataset.ts';

const it = suite('a training run');
const root = mkdtempSync(join(tmpdir(), 'train-'));
it.after(() => rmSync(root, { recursive: true, force: true }));
const store = await openStore(join(root, 'store'));
const dataset = await packBars(store, { train: 70, validation: 20, test: 4 });

const taskOf = (name: string, recipe: object = {}, rest: object = {}) =>
  TrainTask.parse({
    kind: 'train',
    run: name,
    dataset: { digest: dataset },
    model: { name: 'ResNet20', inputSize: { height: 8, width: 8 } },
    recipe: {
      epochs: 30,
      batchSize: 16,
      optimizer: { learningRate: 0.05 },
      augmentations: [{ type: 'HorizontalFlip' }, { type: 'RandomCrop', randomCrop: { padding: 1 } }],
      ...recipe,
    },
    threads: 1,
    ...rest,
  });

interface Watch {
  onProgress?: (progress: Progress) => void;
  env?: NodeJS.ProcessEnv;
  signal?: AbortSignal;
}

/** Trains in a scratch folder of its own, as a fresh pod would. Notes and reports are collected. */
async function train(task: TrainTask, watch: Watch = {}) {
  const scratch = mkdtempSync(join(root, 'scratch-'));
  const notes: string[] = [];
  const reports: Progress[] = [];
  const result = run(task, {
    store,
    scratch,
    env: { ...process.env, ...watch.env },
    signal: watch.signal ?? new AbortController().signal,
    reporter: {
      report(progress) {
        reports.push(progress);
        watch.onProgress?.(progress);
      },
      note: (line) => notes.push(line),
      flush: async () => {},
    },
  });
  return { result: await result, notes, reports };
}

async function failureOf(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => assert.unreachable('it should have failed') as never,
    (error) => error,
  );
}

const undisturbed = await train(taskOf('undisturbed'));

it('learns to tell the classes apart, and keeps the best and the last model in the store', async () => {
  const { result, reports } = undisturbed;
  const accuracy = result.metrics.find((m) => m.name === 'ValidationAccuracy')!.value;
  assert.ok(accuracy >= 0.95, `accuracy ${accuracy}`);
  const { card } = decodeModel(await store.read(result.artifact.digest), 'best');
  assert.equal(card.classes, ['across', 'upright']);
  assert.equal(card.metrics, result.metrics);
  assert.equal(card.dataset, dataset);
  assert.equal(
    result.checkpoints.map((c) => c.name),
    ['Best', 'Last'],
  );
  decodeModel(await store.read(result.checkpoints[1]!.digest), 'last');
  assert.equal(JSON.parse((await store.read(result.preprocessing.digest)).toString()), card.preprocessing);
  assert.is(reports.at(-1)?.percent, 100);
  assert.ok(reports.some((r) => r.stage === 'training' && r.metrics?.some((m) => m.name === 'TrainLoss')));
});

it('returns the result of a run that is done without training again', async () => {
  const { result, reports } = await train(taskOf('undisturbed'));
  assert.equal(result, undisturbed.result);
  assert.is(reports.length, 0);
});

it('saves its state when told to stop, and then goes on to the very same bits', async () => {
  const controller = new AbortController();
  const task = taskOf('stopped');
  const reason = new Error('SIGTERM');
  const stopped = train(task, {
    signal: controller.signal,
    onProgress: ({ stage, epoch }) => stage === 'training' && epoch! >= 3 && controller.abort(reason),
  });
  assert.is(await failureOf(stopped), reason);
  const files = readdirSync(join(store.root, 'runs/stopped'));
  assert.ok(
    files.some((f) => f.startsWith('state-')),
    files.join(),
  );
  const { result, notes } = await train(task);
  assert.ok(
    notes.some((n) => /resuming from the checkpoint of step [1-9]/.test(n)),
    notes.join('\n'),
  );
  assert.equal(
    result.checkpoints.map((c) => c.digest),
    undisturbed.result.checkpoints.map((c) => c.digest),
  );
});

it('answers health while the engine computes, and starts a killed engine again to the very same bits', async () => {
  const address = '127.91.7.1';
  const health = async () => (await fetch(`http://${address}:8080/healthz`)).json() as Promise<Record<string, number>>;
  let killed: Promise<number> | undefined;
  const { result, notes } = await train(taskOf('killed'), {
    env: { POD_IP: address },
    onProgress({ stage, epoch }) {
      if (killed || stage !== 'training' || epoch! < 3) return;
      killed = health().then((status) => {
        process.kill(status.pid!, 'SIGKILL');
        return status.savedStep!;
      });
    },
  });
  assert.ok((await killed!) > 0);
  assert.ok(
    notes.some((n) => /SIGKILL.*starting it again/.test(n)),
    notes.join('\n'),
  );
  assert.equal(
    result.checkpoints.map((c) => c.digest),
    undisturbed.result.checkpoints.map((c) => c.digest),
  );
});

it('gives up an engine that keeps crashing, with its last lines', async () => {
  const error = await failureOf(train(taskOf('crashing'), { env: { NODE_OPTIONS: '--no-such-option' } }));
  assert.instance(error, TrainerError);
  assert.not.instance(error, UserError);
  assert.is(error.name, 'EngineCrashed');
  assert.match(error.message, /exited with 9, 3 times.*no-such-option/);
});

it('fails for good on what the user must change, and says what', async () => {
  const cases: [string, object, object, RegExp][] = [
    ['TooFewSamples', { batchSize: 71 }, {}, /batchSize is 71.*70 samples/],
    ['InvalidModel', {}, { model: { name: 'ResNet20', stem: 'Large' } }, /model\.stem/],
    [
      'NonFiniteLoss',
      { optimizer: { learningRate: 100, weightDecay: 10 }, schedule: { type: 'Constant' } },
      {},
      /loss became .* at step \d+.*learningRate/,
    ],
  ];
  for (const [reason, recipe, rest, message] of cases) {
    const error = await failureOf(train(taskOf(`bad-${reason}`, recipe, rest)));
    assert.instance(error, UserError, `${reason}: ${error}`);
    assert.is(error.name, reason);
    assert.match(error.message, message);
  }
});

it('saves within an epoch once the seconds since the last checkpoint are over', async () => {
  const checkpoints = { everyEpochs: 100_000, everySeconds: 10 };
  const task = taskOf('by-seconds', { epochs: 100_000 }, { checkpoints });
  const trainer = startTrainer(task, { root, store: store.root, address: '127.91.7.2' });
  const { savedStep } = await eventually(async () => {
    const health = await trainer.health();
    return health?.savedStep === undefined ? undefined : health;
  });
  trainer.child.kill('SIGTERM');
  assert.is((await trainer.ended).exitCode, EXIT.INTERRUPTED);
  const stepsPerEpoch = Math.floor(70 / 16);
  assert.ok(savedStep! % stepsPerEpoch > 0, `step ${savedStep}`);
});

it('goes on without checkpoints when the store has no room for them', async () => {
  // In KiB of one file: enough for a model, not for a state, which has the optimizer's too.
  const limit = { root, store: store.root, command: 'ulimit -f 1500; exec "$@"' };
  const task = taskOf('no-room');
  const { exitCode, termination, stderr } = await startTrainer(task, { ...limit, address: '127.91.7.3' }).ended;
  assert.is(exitCode, EXIT.DONE, stderr);
  assert.equal(termination.result, undisturbed.result);
});

it('fails, to be tried again, when the store has no room for the model', async () => {
  const limit = { root, store: join(root, 'full'), command: 'ulimit -f 600; exec "$@"' };
  const full = await openStore(limit.store);
  const digest = await packBars(full, { train: 70, validation: 20, test: 4 });
  const task = taskOf('full', { epochs: 2 }, { dataset: { digest } });
  const { exitCode, termination } = await startTrainer(task, { ...limit, address: '127.91.7.4' }).ended;
  assert.is(exitCode, EXIT.FAILURE);
  assert.is(termination.failure?.reason, 'StoreFull');
  assert.match(termination.failure!.message, /no space left at .*full.*: free some, or enlarge the volume/);
});

it('trains without a validation split, and the last epoch is the best', async () => {
  const digest = await packBars(store, { train: 20, validation: 0, test: 0 });
  const { result } = await train(taskOf('no-validation', { epochs: 2, batchSize: 8 }, { dataset: { digest } }));
  assert.is(result.checkpoints[0]!.epoch, 2);
  assert.equal(
    result.metrics.map((m) => m.name),
    ['TrainLoss'],
  );
});

it.run();
