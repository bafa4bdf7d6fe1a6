/**
 * The engine's process: runs the loop and tells its parent, the supervisor, by messages. Between two steps it reads what the
 * parent says; when the parent is gone it ends.
 */
import { setMaxListeners } from 'node:events';
import { ENV, EXIT, type Progress, type Ring, type TrainResult, TrainTask } from '../contract.ts';
import { TrainerError } from '../errors.ts';
import { openStore } from '../store.ts';
import { type LoopContext, train } from './loop.ts';
import { enterRing } from './ring.ts';
import { answerForStack } from './stack.ts';

export interface EngineJob {
  task: unknown;
  store: string;
  scratch: string;
}

/** Parent to engine. `stack`: where to answer for the stack. `ring` answers `join`. */
export type ToEngine =
  | { type: 'start'; job: EngineJob; stack: string }
  | { type: 'ring'; ring: Ring }
  | { type: 'stop' };

/** What the engine is at, told when it changes; waits that end soon are not told. */
export interface Activity {
  activity: NonNullable<Progress['activity']>;
  /** Of the ring that it is in. */
  generation?: number;
}

/** Engine to parent. */
export type FromEngine =
  | { type: 'progress'; progress: Progress }
  | ({ type: 'activity' } & Activity)
  | { type: 'join' }
  | { type: 'note'; line: string }
  | { type: 'saved'; step: number }
  | { type: 'result'; result: TrainResult }
  | { type: 'failure'; reason: string; message: string; exitCode: number };

/** Shortest time between two messages of progress. */
const PROGRESS_MILLISECONDS = 200;
/** What takes longer is told as an activity of its own. */
const ACTIVITY_MILLISECONDS = 500;

function tell(message: FromEngine): Promise<void> {
  return new Promise((resolve) => process.send!(message, undefined, undefined, () => resolve()));
}

/** Takes the rings that the parent sends. */
let takeRing: ((ring: Ring) => void) | undefined;

function requestRing(signal: AbortSignal): Promise<Ring> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) return stop();
    signal.addEventListener('abort', stop, { once: true });
    takeRing = (ring) => {
      signal.removeEventListener('abort', stop);
      resolve(ring);
    };
    void tell({ type: 'join' });
  });
}

/** The part of the loop's context by which a supervisor sees what its engine waits for, and gives it rings. */
function createWatch(workers: number, signal: AbortSignal): Pick<LoopContext, 'during' | 'join'> {
  let generation: number | undefined;
  const say = (activity: Activity['activity']) =>
    void tell({ type: 'activity', activity, ...(generation !== undefined && { generation }) });
  return {
    async during(activity, work) {
      if (!activity) return work;
      if (activity === 'WaitingForRing') generation = undefined;
      let told = activity === 'WaitingForRing';
      if (told) say(activity);
      const timer = setTimeout(() => {
        told = true;
        say(activity);
      }, ACTIVITY_MILLISECONDS);
      try {
        return await work;
      } finally {
        clearTimeout(timer);
        if (told) say('Computing');
      }
    },
    join:
      workers === 1
        ? undefined
        : async () => {
            const ring = await requestRing(signal);
            const open = await enterRing(ring, signal);
            generation = ring.generation;
            return open;
          },
  };
}

async function work(job: EngineJob, signal: AbortSignal): Promise<number> {
  let told = Number.NEGATIVE_INFINITY;
  try {
    const task = TrainTask.parse(job.task);
    const result = await train(task, {
      store: await openStore(job.store),
      scratch: job.scratch,
      env: process.env,
      signal,
      saved: (step) => void tell({ type: 'saved', step }),
      ...createWatch(task.workers, signal),
      reporter: {
        report(progress) {
          const now = performance.now();
          if (now - told < PROGRESS_MILLISECONDS && progress.percent < 100) return;
          told = now;
          void tell({ type: 'progress', progress });
        },
        note: (line) => void tell({ type: 'note', line }),
        flush: async () => {},
      },
    });
    await tell({ type: 'result', result });
    return EXIT.DONE;
  } catch (error) {
    if (error instanceof TrainerError) {
      await tell({ type: 'failure', reason: error.reason, message: error.message, exitCode: error.exitCode });
      return error.exitCode;
    }
    if (signal.aborted && error === signal.reason) return EXIT.INTERRUPTED;
    console.error(error);
    return EXIT.FAILURE;
  }
}

if (process.send) {
  const controller = new AbortController();
  // Each ring listens until it ends.
  setMaxListeners(0, controller.signal);
  // The supervisor decides: a signal to the whole group reaches this process too, and means nothing here.
  process.on('SIGTERM', () => {});
  process.on('SIGINT', () => {});
  process.on('disconnect', () => process.exit(EXIT.INTERRUPTED));
  process.on('message', (message: ToEngine) => {
    switch (message.type) {
      case 'stop':
        return controller.abort(new Error('told to stop'));
      case 'ring':
        return takeRing?.(message.ring);
      case 'start':
        answerForStack(message.stack);
        work(message.job, controller.signal).then((code) => process.exit(code));
    }
  });
} else {
  console.error(`${ENV.TASK}: this program is started by the trainer; run \`npm run trainer -- train\``);
  process.exit(EXIT.FAILURE);
}
