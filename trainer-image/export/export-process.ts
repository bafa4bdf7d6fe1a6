/** The process in which an export computes: it blocks its thread, so its parent answers signals, and ends it to stop it. */
import { EXIT, type ExportResult, ExportTask } from '../contract.ts';
import { TrainerError } from '../errors.ts';
import { openStore } from '../store.ts';
import { exportModel } from './export.ts';

export interface ExportJob {
  task: ExportTask;
  /** Root of the store. */
  store: string;
  scratch: string;
}

/** What the process tells its parent. */
export type FromExport =
  | { type: 'progress'; stage: string; percent: number }
  | { type: 'result'; result: ExportResult }
  | { type: 'failure'; reason: string; message: string; exitCode: number };

const tell = (message: FromExport) =>
  new Promise<void>((resolve) => {
    process.send!(message, undefined, undefined, () => resolve());
  });

async function work({ task, store, scratch }: ExportJob): Promise<void> {
  try {
    const result = await exportModel(ExportTask.parse(task), {
      store: await openStore(store),
      scratch,
      report: (stage, percent) => void tell({ type: 'progress', stage, percent }),
    });
    await tell({ type: 'result', result });
  } catch (error) {
    if (!(error instanceof TrainerError)) throw error;
    const { reason, message, exitCode } = error;
    await tell({ type: 'failure', reason, message, exitCode });
  }
}

process.on('disconnect', () => process.exit(EXIT.INTERRUPTED));
process.once('message', (job: ExportJob) => work(job).then(() => process.exit(EXIT.DONE)));
