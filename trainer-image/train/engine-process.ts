/**
 * The engine's process: runs the loop and tells its parent, the supervisor, by messages. Between two steps it reads what the
 * parent says; when the parent is gone it ends.
 */
import { ENV, EXIT, type Progress, type TrainResult, TrainTask } from '../contract.ts';
import { TrainerError } from '../errors.ts';
import { openStore } from '../store.ts';
import { train } from './loop.ts';

export interface EngineJob {
  task: unknown;
  store: string;
  scratch: string;
}

/** Parent to engine. */
export type ToEngine = { type: 'start'; job: EngineJob } | { type: 'stop' };

/** Engine to parent. */
export type FromEngine =
  | { type: 'progress'; progress: Progress }
  | { type: 'note'; line: string }
  | { type: 'saved'; step: number }
  | { type: 'result'; result: TrainResult }
  | { type: 'failure'; reason: string; message: string; exitCode: number };

/** Shortest time between two messages of progress. */
const PROGRESS_MILLISECONDS = 200;

function tell(message: FromEngine): Promise<void> {
  return new Promise((resolve) => process.send!(message, undefined, undefined, () => resolve()));
}

async function work(job: EngineJob, signal: AbortSignal): Promise<number> {
  let told = Number.NEGATIVE_INFINITY;
  try {
    const result = await train(TrainTask.parse(job.task), {
      store: await openStore(job.store),
      scratch: job.scratch,
      env: process.env,
      signal,
      saved: (step) => void tell({ type: 'saved', step }),
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
    if (signal.aborted) return EXIT.INTERRUPTED;
    console.error(error);
    return EXIT.FAILURE;
  }
}

if (process.send) {
  const controller = new AbortController();
  // The supervisor decides: a signal to the whole group reaches this process too, and means nothing here.
  process.on('SIGTERM', () => {});
  process.on('SIGINT', () => {});
  process.on('disconnect', () => process.exit(EXIT.INTERRUPTED));
  process.on('message', (message: ToEngine) => {
    if (message.type === 'stop') controller.abort(new Error('told to stop'));
    else work(message.job, controller.signal).then((code) => process.exit(code));
  });
} else {
  console.error(`${ENV.TASK}: this program is started by the trainer; run \`npm run trainer -- train\``);
  process.exit(EXIT.FAILURE);
}
