/**
 * Training, on one page: epochs of steps, validation after each, state saved on the way. Several workers do the same together: each
 * holds the whole model and computes its share of a batch. When their ring breaks each keeps its state and waits for the next ring.
 */
import { setTimeout as delay, setImmediate } from 'node:timers/promises';
import canonicalize from 'canonicalize';
import { type Collective, RingBroken } from '../collectives/index.ts';
import type { Context } from '../command.ts';
import { type Metric, type Progress, TrainResult, type TrainTask } from '../contract.ts';
import { loadEngine } from '../engine/tfjs.ts';
import type { TrainingEngine } from '../engine/training.ts';
import { UserError } from '../errors.ts';
import { learningRate } from '../optim/schedule.ts';
import { artifactOf, type Store, uriOf } from '../store.ts';
import { agree, doneOf } from './agreement.ts';
import { createSharedStep, type StepOutcome } from './exchange.ts';
import { isStoreFull, JournalTaken, openJournal, type RunJournal } from './journal.ts';
import { createMeter, type Meter } from './meter.ts';
import { encodeModel } from './model-file.ts';
import type { Position, TrainingState } from './state-file.ts';
import { accuracyOf, validate } from './validation.ts';
import { type Batch, openWorkload, type Workload } from './workload.ts';

/** Longest pause after a ring in which nothing was done. */
const MAX_PAUSE_SECONDS = 15;

/** What the loop tells besides progress, for whoever watches the process, and where its rings come from. */
export interface LoopContext extends Context {
  /** A state was saved at this step. */
  saved(step: number): void;
  /** Tells what is waited for, if it takes long. */
  during<T>(activity: Progress['activity'], work: Promise<T>): Promise<T>;
  /**
   * A ring newer than any before. Absent where one worker trains alone.
   * @throws RingBroken if its members did not meet; the signal's reason when told to stop
   */
  join?: (() => Promise<Collective>) | undefined;
}

/** A run that is under way: what `train` sets up once and keeps from ring to ring. */
interface Run {
  task: TrainTask;
  context: LoopContext;
  journal: RunJournal;
  workload: Workload;
  steps: number;
  meter: Meter;
  /** Absent until the first state is agreed on. */
  live?: { engine: TrainingEngine; position: Position };
}

/** The model of a task. Interrupted, it saves its state and throws the signal's reason; called again it goes on from there. */
export async function train(task: TrainTask, context: LoopContext): Promise<TrainResult> {
  const journal = await openJournal(context.store, task);
  const known = await journal.finished();
  if (known) return known;
  const workload = await openWorkload(task, context);
  loadEngine(task.threads);
  const { epochs, batchSize } = task.recipe;
  const steps = workload.stepsPerEpoch * epochs;
  const run: Run = { task, context, journal, workload, steps, meter: createMeter({ epochs, steps, batchSize }) };
  try {
    return context.join ? await trainTogether(run, context.join) : await trainOn(run, undefined);
  } finally {
    run.live?.engine.release();
    workload.close();
  }
}

/** Goes from ring to ring until the run is done. */
async function trainTogether(run: Run, join: () => Promise<Collective>): Promise<TrainResult> {
  const { context, journal } = run;
  for (let pause = 0; ; ) {
    const before = run.live && doneOf(run.live.position);
    let ring: Collective | undefined;
    try {
      ring = await context.during('WaitingForRing', join());
      return await trainOn(run, ring);
    } catch (error) {
      const told = context.signal.aborted && error === context.signal.reason;
      if (!(told || error instanceof RingBroken || error instanceof JournalTaken)) throw error;
      if (context.signal.aborted) return await leave(run);
      context.reporter.note(`${(error as Error).message}; waiting for the next ring`);
    } finally {
      await ring?.close();
    }
    // Who was lost may have been the last to hear that all is done.
    const known = await journal.finished();
    if (known) return known;
    // Rings that break before anything was done in them are not asked for without end.
    const advanced = run.live && doneOf(run.live.position) !== before;
    pause = advanced ? 0 : Math.min(MAX_PAUSE_SECONDS, 2 * pause + 0.25);
    await delay(1000 * pause * Math.random(), undefined, { signal: context.signal }).catch(() => {});
  }
}

/** Trains to the end, in a ring or alone. */
async function trainOn(run: Run, ring: Collective | undefined): Promise<TrainResult> {
  const { task, context, journal, workload } = run;
  const { reporter, signal } = context;
  const { recipe, checkpoints } = task;
  const writes = !ring || ring.rank === 0;
  await journal.enter(ring?.generation ?? 0, writes);
  const { engine, position } = await takeUp(run, ring);
  const step = ring ? createSharedStep(engine, ring) : createOwnStep(engine);
  let savedAt = performance.now();
  const save = async () => {
    savedAt = performance.now();
    if (writes) await context.during('Saving', saveState(run));
  };

  while (position.epoch < recipe.epochs) {
    const epochEnd = (position.epoch + 1) * workload.stepsPerEpoch;
    while (position.step < epochEnd) {
      const batch = workload.batch(position.step, ring?.rank ?? 0, ring?.world ?? 1);
      const rate = learningRate(recipe.schedule, recipe.optimizer.learningRate, position.step, run.steps);
      const outcome = step(batch, rate, position.step, () => signal.aborted);
      const { loss, stop } = await context.during('Exchanging', outcome);
      if (!Number.isFinite(loss)) throw nonFiniteLoss(loss, position.step, rate);
      position.step++;
      position.lossSum += loss;
      const trainLoss = position.lossSum / (position.step - position.epoch * workload.stepsPerEpoch);
      const metrics = [{ name: 'TrainLoss', value: trainLoss }, ...(position.best?.metrics ?? [])];
      reporter.report(run.meter(position.epoch + 1, position.step, metrics));
      if (stop) await stopHere(run, ring, save);
      else if (position.step < epochEnd && performance.now() - savedAt > checkpoints.everySeconds * 1000) await save();
    }
    await closeEpoch(run, ring, position, engine);
    if (position.epoch === recipe.epochs || position.epoch % checkpoints.everyEpochs === 0) await save();
  }
  return conclude(run, ring);
}

/** One worker's step; messages and signals are taken in after it, since the engine itself blocks. */
function createOwnStep(engine: TrainingEngine) {
  return async (batch: Batch, rate: number, step: number, stopping: () => boolean): Promise<StepOutcome> => {
    const loss = engine.step(batch.pixels, batch.labels, rate, step);
    await setImmediate();
    return { loss, stop: stopping() };
  };
}

/** The state to go on from: the one in memory, a peer's, the newest checkpoint's, or the first. */
async function takeUp(run: Run, ring: Collective | undefined): Promise<NonNullable<Run['live']>> {
  const { context, journal, workload } = run;
  const begin = async () => {
    const saved = await journal.resume(context.reporter.note);
    if (saved) context.reporter.note(`resuming from the checkpoint of step ${saved.position.step}`);
    return saved ?? workload.firstState();
  };
  const own = run.live && stateOf(run.live);
  const state = ring ? await context.during('Exchanging', agree(ring, own, begin)) : await begin();
  if (!run.live || state !== own) {
    run.live?.engine.release();
    run.live = { engine: workload.createEngine(state), position: state.position };
  }
  return run.live;
}

function stateOf({ engine, position }: NonNullable<Run['live']>): TrainingState {
  return { position, weights: engine.weights(), optimizer: engine.optimizerState() };
}

/** Validates, and keeps the model if it is the best. */
async function closeEpoch(run: Run, ring: Collective | undefined, position: Position, engine: TrainingEngine) {
  const { task, context, workload, journal } = run;
  const epoch = position.epoch + 1;
  const metrics: Metric[] = [
    { name: 'TrainLoss', value: position.lossSum / workload.stepsPerEpoch },
    ...(await context.during('Exchanging', validate(engine, workload.validation, ring))),
  ];
  const diverged = metrics.find(({ value }) => !Number.isFinite(value));
  if (diverged) throw nonFiniteLoss(diverged.value, position.step, task.recipe.optimizer.learningRate);
  const best =
    !position.best || accuracyOf(metrics) >= accuracyOf(position.best.metrics)
      ? await byFirstRank(ring, () => {
          const content = encodeModel(workload.card(epoch, metrics), engine.weights());
          return context.during('Saving', journal.saveBest(epoch, metrics, content));
        })
      : position.best;
  Object.assign(position, { epoch, lossSum: 0, best });
  const words = metrics.map((m) => `${m.name} ${m.value.toFixed(4)}`).join('  ');
  context.reporter.note(`epoch ${epoch}/${task.recipe.epochs}  ${words}`);
  context.reporter.report(run.meter(epoch, position.step, metrics));
}

/** What rank 0 finds out, at every rank. */
async function byFirstRank<T>(ring: Collective | undefined, find: () => Promise<T>): Promise<T> {
  if (!ring) return find();
  const found = ring.rank === 0 ? Buffer.from(JSON.stringify(await find())) : undefined;
  return JSON.parse(Buffer.from(await ring.broadcast(found, 0)).toString());
}

/** Saves the state. A full store fails the checkpoint, not the run: the next one may fit again. */
async function saveState({ task, context, journal, live }: Run): Promise<void> {
  try {
    await journal.save(stateOf(live!), task.checkpoints.keepLast);
    context.saved(live!.position.step);
  } catch (error) {
    if (!isStoreFull(error)) throw error;
    context.reporter.note(`no checkpoint at step ${live!.position.step}: ${error.message}`);
  }
}

/** Somebody was told to stop: the state of this very step is saved, and then the ring ends for all. */
async function stopHere({ context }: Run, ring: Collective | undefined, save: () => Promise<void>): Promise<void> {
  await save();
  await ring?.barrier();
  context.signal.throwIfAborted();
  if (ring) throw new RingBroken('a worker of the ring was told to stop');
}

/** Told to stop: a worker whose ring did not save the state with it saves what it has, unless a newer state is there. */
async function leave(run: Run): Promise<never> {
  const { context, journal, live } = run;
  if (live && live.position.step > (await journal.newestStep())) {
    await saveState(run).catch((error) => {
      if (!(error instanceof JournalTaken)) throw error;
    });
  }
  throw context.signal.reason;
}

/** Puts the models into the store and the result into the journal, once for all workers. */
async function conclude(run: Run, ring: Collective | undefined): Promise<TrainResult> {
  const { context, journal, live } = run;
  const result = TrainResult.parse(
    await byFirstRank(ring, async () => {
      const found = await context.during('Saving', storeModels(run, live!, context.store));
      await journal.finish(found);
      return found;
    }),
  );
  // The result is durable: who leaves before all have heard of it harms nobody, since it is found in the journal.
  await ring?.barrier().catch(() => {});
  return result;
}

async function storeModels(
  { task, workload, journal }: Run,
  { position, engine }: NonNullable<Run['live']>,
  store: Store,
): Promise<TrainResult> {
  const { epochs } = task.recipe;
  const best = position.best!;
  const artifact = artifactOf(await store.putBytes(await journal.readBest(best)));
  const card = workload.card(epochs, best.epoch === epochs ? best.metrics : []);
  const last = await store.putStream(encodeModel(card, engine.weights()));
  const contract = await store.putBytes(canonicalize(workload.preprocessing)!);
  return {
    kind: 'train',
    artifact,
    checkpoints: [
      { name: 'Best', epoch: best.epoch, digest: artifact.digest, uri: artifact.uri },
      { name: 'Last', epoch: epochs, digest: last.digest, uri: uriOf(last.digest) },
    ],
    preprocessing: { digest: contract.digest },
    epochs,
    metrics: best.metrics,
  };
}

function nonFiniteLoss(loss: number, step: number, rate: number): UserError {
  return new UserError(
    'NonFiniteLoss',
    `the loss became ${loss} at step ${step} (learning rate ${rate.toPrecision(3)}): lower recipe.optimizer.learningRate, ` +
      'raise recipe.schedule.warmupSteps, or set recipe.gradientClipNorm (1 is usual)',
  );
}
