/** `export`: trained weights to an ONNX model that was measured against them before anything can use it. */
import { fork } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Context } from '../command.ts';
import { ExportResult, type ExportTask } from '../contract.ts';
import { TrainerError, UserError } from '../errors.ts';
import { readDocument, writeDocument } from '../store.ts';
import type { ExportJob, FromExport } from './export-process.ts';

/** A finished run's answer: found again instead of measured again. */
const RESULT = 'export.json';

/**
 * @throws UserError VerificationFailed with what was measured, or as the model and dataset do; EngineCrashed if the computing
 * process dies
 */
export async function run(task: ExportTask, context: Context): Promise<ExportResult> {
  const file = path.join(await context.store.runFolder(task.run), RESULT);
  const found = ExportResult.safeParse(await readDocument(file));
  const result = found.success ? found.data : await compute(task, context);
  if (!found.success) await writeDocument(file, result);
  if (result.verification.passed) return result;
  // The user's to decide about; the numbers go with the error.
  throw new UserError('VerificationFailed', result.failure ?? 'the export does not hold its limits', { result });
}

/** The work, in a process of its own that is ended when the signal aborts. */
function compute(task: ExportTask, { store, scratch, signal, reporter, env }: Context): Promise<ExportResult> {
  signal.throwIfAborted();
  const child = fork(fileURLToPath(new URL('./export-process.ts', import.meta.url)), {
    env,
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let lastWords = '';
  child.stderr?.on('data', (chunk) => {
    lastWords = `${lastWords}${chunk}`.slice(-800);
  });
  const stop = () => child.kill('SIGKILL');
  signal.addEventListener('abort', stop);
  return new Promise<ExportResult>((resolve, reject) => {
    child.on('message', (message: FromExport) => {
      if (message.type === 'progress') reporter.report({ stage: message.stage, percent: message.percent });
      else if (message.type === 'result') resolve(message.result);
      else reject(new TrainerError(message.reason, message.message, { exitCode: message.exitCode }));
    });
    child.on('error', reject);
    child.on('exit', (code, by) => {
      const crash = new TrainerError('EngineCrashed', `the exporting process ended with ${by ?? code}: ${lastWords}`);
      reject(signal.aborted ? signal.reason : crash);
    });
    child.send({ task, store: store.root, scratch } satisfies ExportJob);
  }).finally(() => {
    signal.removeEventListener('abort', stop);
    stop();
  });
}
