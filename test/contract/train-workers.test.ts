// timeout: 300
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EXIT, type TrainResult } from '../../trainer-image/contract.ts';
import { openStore } from '../../trainer-image/store.ts';
import { type Ending, startWorkers } from '../workers.ts';
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
const start = (task: ReturnType<typeof taskOf>, network: string) =>
  startWorkers(task as never, { root, store: store.root, network });

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
  await workers.close();
});

it.run();
