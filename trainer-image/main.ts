/**
 * The trainer: `node main.ts prepare|train|export|serve`. Runs one task and says how it ended: by exit code (contract.ts EXIT), and
 * by a termination message, or by the result on standard output where nobody asked for one.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { argv, env, exit, stderr, stdout } from 'node:process';
import type { Context } from './command.ts';
import { ENV, EXIT, type Result, type Task } from './contract.ts';
import { TrainerError } from './errors.ts';
import { createReporter } from './progress.ts';
import { openStore } from './store.ts';
import { type CommandName, readInvocation } from './task.ts';
import { encodeTermination } from './termination.ts';

type Run = (task: Task, context: Context) => Promise<Result | undefined>;

/** Loaded only when asked for: training needs an engine that serving does not. */
const MODULES: Record<CommandName, () => Promise<unknown>> = {
  prepare: () => import('./data/prepare.ts'),
  train: () => import('./train/command.ts'),
  export: () => import('./export/command.ts'),
  serve: () => import('./serve/command.ts'),
};

/** How the task ended. */
interface Outcome {
  exitCode: number;
  result?: Result | undefined;
  failure?: { reason: string; message: string };
}

/** Aborted at the first signal; a second one ends the process at once. */
function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) exit(EXIT.INTERRUPTED);
      controller.abort(new Error(`told to stop by ${name}`));
    });
  }
  return controller.signal;
}

async function main(): Promise<Outcome> {
  const signal = stopSignal();
  let temporary: string | undefined;
  const reporter = createReporter(env);
  try {
    const invocation = await readInvocation(argv.slice(2), env);
    if (typeof invocation === 'string') {
      await print(invocation);
      return { exitCode: EXIT.DONE };
    }
    const store = await openStore(invocation.store);
    const given = env[ENV.SCRATCH];
    if (given) await mkdir(given, { recursive: true });
    else temporary = mkdtempSync(join(tmpdir(), 'fovea-'));
    const { run } = (await MODULES[invocation.command]()) as { run: Run };
    const context = { store, reporter, signal, scratch: given || temporary!, env };
    return { exitCode: EXIT.DONE, result: await run(invocation.task, context) };
  } catch (error) {
    return outcomeOf(error, signal);
  } finally {
    await reporter.flush();
    if (temporary) rmSync(temporary, { recursive: true, force: true });
  }
}

function outcomeOf(error: unknown, signal?: AbortSignal): Outcome {
  if (error instanceof TrainerError) {
    const { exitCode, result, reason, message } = error;
    return { exitCode, result, failure: { reason, message } };
  }
  if (signal?.aborted) {
    const { message } = signal.reason as Error;
    return { exitCode: EXIT.INTERRUPTED, failure: { reason: 'Interrupted', message } };
  }
  // Nothing that is thrown on purpose: where it came from helps whoever looks into it.
  stderr.write(`${error instanceof Error ? error.stack : error}\n`);
  const message = error instanceof Error ? error.message : String(error);
  return { exitCode: EXIT.FAILURE, failure: { reason: 'InternalError', message: message || 'no message' } };
}

/** Resolves when the reader has taken it: what a full pipe does not hold yet would be lost at the exit. */
function print(text: string): Promise<void> {
  return new Promise((resolve) => stdout.write(`${text}\n`, () => resolve()));
}

function conclude({ exitCode, result, failure }: Outcome): never {
  const file = env[ENV.TERMINATION_LOG];
  // In a pod the file is a mount, which cannot be renamed over.
  if (file && (result || failure)) writeFileSync(file, encodeTermination({ result, failure }));
  if (failure) stderr.write(`${failure.reason}: ${failure.message}\n`);
  exit(exitCode);
}

process.on('uncaughtException', (error) => conclude(outcomeOf(error)));
const outcome = await main();
if (outcome.result && !env[ENV.TERMINATION_LOG]) await print(JSON.stringify(outcome.result, null, 2));
conclude(outcome);
