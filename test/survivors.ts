/** Training jobs whose workers are killed on the way, and what must hold of them: for the test of a few and the bench of many. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { TrainResult } from '../trainer-image/contract.ts';
import { randomStream } from '../trainer-image/philox.ts';
import type { Store } from '../trainer-image/store.ts';
import { packBars } from './contract/bars-dataset.ts';
import { eventually } from './eventually.ts';
import { type Ending, startWorkers, type Workers } from './workers.ts';

export interface Place {
  root: string;
  store: Store;
  /** Digest of the dataset. */
  dataset: string;
}

const EPOCHS = 50;
const SAMPLES = 64;
const BATCH = 16;
export const STEPS = EPOCHS * Math.floor(SAMPLES / BATCH);

export async function packSamples(store: Store): Promise<string> {
  return packBars(store, { train: SAMPLES, validation: 8, test: 0 });
}

/** No checkpoint is due before the end, so whoever goes on can have it from a peer alone. */
const taskOf = (run: string, { dataset }: Place, workers: number, seed: number) => ({
  run,
  workers,
  dataset: { digest: dataset },
  model: { name: 'ResNet20' as const, inputSize: { height: 8, width: 8 } },
  recipe: { epochs: EPOCHS, batchSize: BATCH, seed, optimizer: { learningRate: 0.02 } },
  checkpoints: { everyEpochs: EPOCHS, everySeconds: 86_400 },
  threads: 1,
});

const start = (run: string, place: Place, workers: number, seed: number, network: string) =>
  startWorkers(taskOf(run, place, workers, seed) as never, { root: place.root, store: place.store.root, network });

/** The result that all workers ended with. */
function commonResult(endings: readonly Ending[]): TrainResult {
  const [first] = endings;
  for (const { exitCode, termination, stderr } of endings) {
    if (exitCode !== 0) throw new Error(`a worker ended with ${exitCode}:\n${stderr}`);
    if (JSON.stringify(termination) !== JSON.stringify(first!.termination)) {
      throw new Error(`workers ended with different results:\n${JSON.stringify(endings.map((e) => e.termination))}`);
    }
  }
  return first!.termination.result as TrainResult;
}

const digestsOf = (result: TrainResult) => result.checkpoints.map(({ digest }) => digest).join(' ');

/** The digests of an undisturbed run. */
export async function undisturbed(place: Place, workers: number, seed: number, network: string): Promise<string> {
  const run = await start(`calm-${workers}-${seed}`, place, workers, seed, network);
  try {
    return digestsOf(commonResult(await run.endings()));
  } finally {
    await run.close();
  }
}

interface Kill {
  what: 'engine' | 'pod';
  index: number;
  /** That a survivor had finished when it was about to happen. */
  step: number;
  /** From the kill until a survivor had finished a step of the next ring. */
  seconds: number;
}

export interface Disturbed {
  digests: string;
  kills: Kill[];
  generations: number;
  /** What was not as it must be. */
  faults: string[];
}

/**
 * A run of training seed `seed` in which `kills` times a worker, drawn by `killSeed`, is killed at a drawn step: its engine, or its
 * whole pod.
 */
export async function disturbed(
  place: Place,
  job: { run: string; workers: number; seed: number; killSeed: number; kills: number; network: string },
): Promise<Disturbed> {
  const { run, workers, seed, killSeed, kills, network } = job;
  const random = randomStream(killSeed, 2000, workers, 0);
  const crew = await start(run, place, workers, seed, network);
  const outcome: Disturbed = { digests: '', kills: [], generations: 0, faults: [] };
  try {
    const stretch = Math.floor((STEPS * 0.8) / kills);
    for (let k = 0; k < kills; k++) {
      const index = random.integer(workers);
      const what = random.integer(2) === 0 ? 'engine' : 'pod';
      const step = k * stretch + 5 + random.integer(stretch - 5);
      outcome.kills.push(await killOne(crew, { what, index, step }, outcome.faults));
    }
    const files = readdirSync(join(place.store.root, 'runs', run)).filter((file) => file.startsWith('state-'));
    if (files.length > 0) outcome.faults.push(`there are checkpoints: ${files}`);
    outcome.digests = digestsOf(commonResult(await crew.endings()));
    outcome.generations = crew.server.generation;
    return outcome;
  } finally {
    await crew.close();
  }
}

async function killOne(
  crew: Workers,
  { what, index, step }: { what: Kill['what']; index: number; step: number },
  faults: string[],
): Promise<Kill> {
  const survivors = crew.all.filter((worker) => worker.index !== index);
  const watched = survivors[0]!;
  // The victim must be in it too, or this would be no more than a slow start.
  await crew.reached(index, step);
  await crew.reached(watched.index, step);
  const before = await Promise.all(survivors.map((worker) => worker.health()));
  const { generation } = crew.server;
  const killedAt = performance.now();
  if (what === 'engine') await crew.all[index]!.killEngine();
  else {
    await crew.all[index]!.kill();
    crew.start(index);
  }
  const last = before[0]!.progress!.step!;
  let lowest = last;
  await eventually(
    async () => {
      const now = (await watched.health())?.progress;
      if (now?.step !== undefined && now.step < lowest) lowest = now.step;
      return crew.server.generation > generation && (now?.step ?? -1) > last;
    },
    () => `a step beyond ${last} after the ${what} of worker ${index} was killed`,
  );
  const seconds = (performance.now() - killedAt) / 1000;
  for (const [i, worker] of survivors.entries()) {
    const now = await worker.health();
    if (now?.pid !== before[i]!.pid || now?.restarts !== before[i]!.restarts) {
      faults.push(`worker ${worker.index} was restarted when the ${what} of worker ${index} was killed`);
    }
  }
  if (lowest < last) faults.push(`survivors went back from step ${last} to ${lowest}`);
  return { what, index, step: last, seconds };
}
