// timeout: 500
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EXIT, type TrainResult } from '../../trainer-image/contract.ts';
import { openStore } from '../../trainer-image/store.ts';
import { eventually } from '../eventually.ts';
import { type Ending, startTrainer, startWorkers, type Workers } from '../workers.ts';
import { packBars } from './bars-dataset.ts';

const it = suite('several workers');
const root = mkdtempSync(join(tmpdir(), 'workers-'));
it.after(() => rmSync(root, { recursive: true, force: true }));
const store = await openStore(join(root, 'store'));
const dataset = await packBars(store, { train: 70, validation: 20, test: 4 });

const taskOf = (run: string, workers: number, recipe: object = {}, rest: object = {}) => ({
  run,
  workers,
  dataset: { digest: dataset },
  model: { name: 'ResNet20', inputSize: { height: 8, width: 8 } },
  recipe: { epochs: 8, batchSize: 16, optimizer: { learningRate: 0.05 }, augmentations: [], ...recipe },
  threads: 1,
  ...rest,
});
const running: Workers[] = [];
const start = async (task: ReturnType<typeof taskOf>, network: string) => {
  const workers = await startWorkers(task as never, { root, store: store.root, network });
  running.push(workers);
  return workers;
};
it.after.each(() => Promise.all(running.splice(0).map((workers) => workers.close())).then(() => {}));

/** The result that all workers ended with. */
function commonResult(endings: readonly Ending[]): TrainResult {
  for (const { exitCode, stderr } of endings) assert.is(exitCode, EXIT.DONE, stderr);
  const [first, ...others] = endings.map(({ termination }) => termination.result);
  for (const other of others) assert.equal(other, first);
  return first as TrainResult;
}

it('train to the end and say the same', async () => {
  const workers = await start(taskOf('two', 2), '127.72.10');
  const result = commonResult(await workers.endings());
  assert.is(result.checkpoints[1]!.epoch, 8);
  assert.is(workers.server.generation, 1);
  for (const { pod } of workers.all) {
    const reports = workers.server.progress(pod);
    assert.ok(
      reports.some(({ stage, generation }) => stage === 'training' && generation === 1),
      JSON.stringify(reports),
    );
  }
});

/** Enough steps that a run can be disturbed in the middle. */
const LONG = { epochs: 40, optimizer: { learningRate: 0.02 } };
const SAVING = { checkpoints: { everyEpochs: 5, keepLast: 3 } };
const journalOf = (run: string) => JSON.parse(readFileSync(join(store.root, 'runs', run, 'journal.json'), 'utf8'));
const digestsOf = (result: TrainResult) => result.checkpoints.map(({ digest }) => digest);
const calm = await (async () => {
  const workers = await start(taskOf('calm', 2, LONG, SAVING), '127.72.11');
  return digestsOf(commonResult(await workers.endings()));
})();

it('stopped one after the other save at the very step, and go on to the very same bits', async () => {
  const workers = await start(taskOf('stopped', 2, LONG), '127.72.12');
  for (const index of [0, 1]) {
    const survivor = workers.all[1 - index]!;
    const { step } = (await workers.reached(index, 30 + 30 * index)).progress!;
    const { pid } = (await survivor.health())!;
    workers.all[index]!.child.kill('SIGTERM');
    const { exitCode, termination } = await workers.all[index]!.ended;
    assert.is(exitCode, EXIT.INTERRUPTED);
    assert.equal(termination, { failure: { reason: 'Interrupted', message: 'told to stop by SIGTERM' } });
    assert.ok(journalOf('stopped').states.at(-1).step >= step!);
    workers.start(index);
    await workers.reached(index, step! + 1);
    assert.is((await survivor.health())!.pid, pid);
  }
  assert.equal(digestsOf(commonResult(await workers.endings())), calm);
});

it('all stopped end with 75 at one step; started again they go on to the very same bits', async () => {
  const task = taskOf('all-stopped', 3, LONG, { checkpoints: { everyEpochs: 1000 } });
  const first = await start(task, '127.72.13');
  await first.reached(0, 30);
  for (const { child } of first.all) child.kill('SIGTERM');
  for (const { exitCode, stderr } of await first.endings()) assert.is(exitCode, EXIT.INTERRUPTED, stderr);
  assert.is(journalOf('all-stopped').states.length, 1);
  await first.close();
  const second = await start(task, '127.72.14');
  const result = commonResult(await second.endings());
  const undisturbed = await start(taskOf('calm-three', 3, LONG), '127.72.15');
  assert.equal(digestsOf(result), digestsOf(commonResult(await undisturbed.endings())));
});

it('all killed at once go on from the newest checkpoint that is whole', async () => {
  const task = taskOf('all-killed', 2, LONG, SAVING);
  const first = await start(task, '127.72.16');
  await first.reached(0, 65);
  await Promise.all(first.all.map((worker) => worker.kill()));
  await first.close();
  const { states } = journalOf('all-killed');
  const [before, newest] = states.slice(-2);
  const file = join(store.root, 'runs/all-killed', newest.file);
  const bytes = readFileSync(file);
  bytes[bytes.length >> 1]! ^= 1;
  writeFileSync(file, bytes);

  const second = await start(task, '127.72.17');
  const { progress } = await second.reached(0, 0);
  assert.ok(progress!.step! > before.step && progress!.step! <= newest.step, JSON.stringify([progress, states]));
  assert.equal(digestsOf(commonResult(await second.endings())), calm);
});

it('need no intake while they train, and wait for it when they need a ring', async () => {
  const workers = await start(taskOf('outage', 2, LONG), '127.72.18');
  await workers.reached(0, 20);
  workers.server.fail();
  await workers.reached(0, 40);
  await workers.all[1]!.killEngine();
  await eventually(async () => (await workers.all[0]!.health())?.activity?.activity === 'WaitingForRing');
  const { pid } = (await workers.all[0]!.health())!;
  workers.server.recover();
  assert.equal(digestsOf(commonResult(await workers.endings())), calm);
  assert.ok(pid);
});

it('one that stands still is reported with its stack, is left behind, and comes back', async () => {
  const workers = await start(taskOf('hung', 2, LONG, { stackAfterSeconds: 1 }), '127.72.19');
  await workers.reached(1, 30);
  const { pid } = (await workers.all[1]!.health())!;
  process.kill(pid!, 'SIGSTOP');
  const reports = () => workers.server.progress(workers.all[1]!.pod);
  const { standingSeconds, stack, step } = await eventually(async () =>
    reports().find((report) => report.stack?.includes('T (stopped)')),
  );
  assert.ok(standingSeconds! >= 1);
  assert.ok(step! >= 30);
  assert.match(stack!, /native code/);
  await eventually(async () => (await workers.all[0]!.health())?.activity?.activity === 'WaitingForRing');
  process.kill(pid!, 'SIGCONT');
  assert.equal(digestsOf(commonResult(await workers.endings())), calm);
  assert.is(workers.server.generation, 2);
});

it('are refused without an intake, or with fewer samples in a batch than workers', async () => {
  const without = startTrainer(taskOf('alone', 2), { root, store: store.root, address: '127.72.9.1' });
  const { exitCode, termination } = await without.ended;
  assert.is(exitCode, EXIT.USER_ERROR);
  assert.is(termination.failure?.reason, 'NoIntake');
  assert.match(termination.failure!.message, /workers is 2.*FOVEA_INTAKE/);
  const workers = await start(taskOf('narrow', 2, { batchSize: 1 }), '127.72.8');
  for (const ending of await workers.endings()) {
    assert.is(ending.exitCode, EXIT.USER_ERROR);
    assert.match(ending.termination.failure!.message, /batchSize is 1 for 2 workers/);
  }
});

it.run();
