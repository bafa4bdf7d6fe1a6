/** `export`: a trained model becomes an ONNX file that is verified against it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Context } from '../command.ts';
import { EXIT, ExportResult, type ExportTask } from '../contract.ts';
import { TrainerError, UserError } from '../errors.ts';
import type { ExportJob, FromExport } from './export-process.ts';

/** Lines of the process's standard error that a crash is explained with. */
const LAST_LINES = 5;

/**
 * Exports in a child process, which is ended when the signal aborts: it leaves nothing half-written, and starting over is cheap.
 * @throws UserError VerificationFailed with the numbers in its result; ExportCrashed if the process ends without an answer.
 */
export async function run(task: ExportTask, context: Context): Promise<ExportResult> {
  const { signal, reporter, env, store, scratch } = context;
  signal.throwIfAborted();
  const child = spawn(process.execPath, [fileURLToPath(new URL('./export-process.ts', import.meta.url))], {
    env,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  const stop = () => child.kill('SIGKILL');
  signal.addEventListener('abort', stop, { once: true });
  const lastLines: string[] = [];
  createInterface({ input: child.stderr! }).on('line', (line) => {
    lastLines.push(line);
    if (lastLines.length > LAST_LINES) lastLines.shift();
  });
  let answer: Exclude<FromExport, { type: 'progress' }> | undefined;
  child.on('message', (message: FromExport) => {
    if (message.type === 'progress') reporter.report({ stage: message.stage, percent: message.percent });
    else answer = message;
  });
  child.send({ task, store: store.root, scratch } satisfies ExportJob, () => {});
  // Not `exit`: the messages and the last lines come before `close`.
  const [code, killedBy] = await once(child, 'close');
  signal.removeEventListener('abort', stop);

  if (!answer) {
    signal.throwIfAborted();
    const how = killedBy
      ? `was ended by ${killedBy}${killedBy === 'SIGKILL' ? ' (out of memory?)' : ''}`
      : `exited with ${code}`;
    const words = lastLines.length > 0 ? ` Its last lines: ${lastLines.join(' | ').slice(0, 600)}` : '';
    throw new TrainerError('ExportCrashed', `the process that exports ${how}.${words}`);
  }
  if (answer.type === 'failure') {
    const { reason, message, exitCode } = answer;
    throw exitCode === EXIT.USER_ERROR
      ? new UserError(reason, message)
      : new TrainerError(reason, message, { exitCode });
  }
  const result = ExportResult.parse(answer.result);
  if (!result.verification.passed) {
    throw new UserError('VerificationFailed', `the export is not good enough to be served: ${result.failure}`, {
      result,
    });
  }
  return result;
}
