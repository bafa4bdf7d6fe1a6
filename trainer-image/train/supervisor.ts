/**
 * The pod's first process of a training run. It never computes, so it answers at once: signals, and the health endpoint. The engine
 * runs in a child; one that crashes is started again in place, from its last checkpoint.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer, type Server } from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Context } from '../command.ts';
import { ENV, EXIT, type Progress, type TrainResult, type TrainTask } from '../contract.ts';
import { TrainerError, UserError } from '../errors.ts';
import type { EngineJob, FromEngine, ToEngine } from './engine-process.ts';

const HEALTH_PORT = 8080;
/** An engine that crashes this often without a checkpoint in between is given up. */
const MAX_CRASHES = 3;
/** Lines of the engine's standard error that a crash is explained with. */
const LAST_LINES = 5;
/** TensorFlow says these at each start, whatever the log level is. */
const CHATTER =
  /absl::InitializeLog|oneDNN custom operations|optimized to use available CPU|To enable the following instructions/;

/** How one engine process ended. */
type Ending =
  | { type: 'result'; result: TrainResult }
  | { type: 'failure'; reason: string; message: string; exitCode: number }
  | { type: 'crash'; how: string; lastLines: string[] };

interface Status {
  state: 'starting' | 'training' | 'stopping';
  pid: number | undefined;
  restarts: number;
  savedStep: number | undefined;
  progress: Progress | undefined;
  /** When the engine last said something, in milliseconds since the epoch. */
  heardAt: number;
}

/**
 * Trains in a child process until it is done.
 * @throws TrainerError or UserError as the engine does; EngineCrashed if it keeps crashing; the signal's reason when told to stop, after
 * the state was saved
 */
export async function supervise(task: TrainTask, context: Context): Promise<TrainResult> {
  const { signal, reporter } = context;
  const job: EngineJob = { task, store: context.store.root, scratch: context.scratch };
  const status: Status = {
    state: 'starting',
    pid: undefined,
    restarts: 0,
    savedStep: undefined,
    progress: undefined,
    heardAt: Date.now(),
  };
  const health = await serveHealth(context.env[ENV.POD_IP], status, reporter.note);
  try {
    for (let crashes = 0; ; status.restarts++) {
      signal.throwIfAborted();
      const before = status.savedStep;
      const ending = await runEngine(job, context, status);
      if (ending.type === 'result') return ending.result;
      if (ending.type === 'failure') throw failureOf(ending);
      signal.throwIfAborted();
      crashes = status.savedStep === before ? crashes + 1 : 1;
      if (crashes >= MAX_CRASHES) throw engineCrashed(crashes, ending);
      reporter.note(`the engine ${ending.how}; starting it again from its last checkpoint`);
      for (const line of ending.lastLines) reporter.note(`  ${line}`);
    }
  } finally {
    health?.close();
    health?.closeAllConnections();
  }
}

/** Runs one engine process to its end. When the signal aborts it is asked to save and stop, and waited for. */
function runEngine(job: EngineJob, { signal, reporter, env }: Context, status: Status): Promise<Ending> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('./engine-process.ts', import.meta.url))], {
    env,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  status.pid = child.pid;
  status.state = 'starting';
  const lastLines: string[] = [];
  createInterface({ input: child.stderr! }).on('line', (line) => {
    if (CHATTER.test(line) || line.trim() === '') return;
    lastLines.push(line);
    if (lastLines.length > LAST_LINES) lastLines.shift();
    reporter.note(line);
  });

  let answer: Ending | undefined;
  child.on('message', (message: FromEngine) => {
    status.heardAt = Date.now();
    switch (message.type) {
      case 'progress':
        if (status.state === 'starting') status.state = 'training';
        status.progress = message.progress;
        reporter.report(message.progress);
        break;
      case 'note':
        reporter.note(message.line);
        break;
      case 'saved':
        status.savedStep = message.step;
        break;
      default:
        answer = message;
    }
  });
  const stop = () => {
    status.state = 'stopping';
    tell(child, { type: 'stop' });
  };
  signal.addEventListener('abort', stop, { once: true });
  tell(child, { type: 'start', job });

  return new Promise((resolve, reject) => {
    child.on('error', reject);
    // Not `exit`: the messages and the last lines come before `close`.
    child.on('close', (code, killedBy) => {
      signal.removeEventListener('abort', stop);
      status.pid = undefined;
      const how = killedBy
        ? `was ended by ${killedBy}${killedBy === 'SIGKILL' ? ' (out of memory?)' : ''}`
        : `exited with ${code}`;
      resolve(answer ?? { type: 'crash', how, lastLines });
    });
  });
}

/** Sends a message; an engine that is gone meanwhile shows by its exit. */
function tell(child: ChildProcess, message: ToEngine): void {
  if (child.connected) child.send(message, () => {});
}

function failureOf({ reason, message, exitCode }: Extract<Ending, { type: 'failure' }>): TrainerError {
  return exitCode === EXIT.USER_ERROR
    ? new UserError(reason, message)
    : new TrainerError(reason, message, { exitCode });
}

function engineCrashed(crashes: number, { how, lastLines }: Extract<Ending, { type: 'crash' }>): TrainerError {
  const words = lastLines.length > 0 ? ` Its last lines: ${lastLines.join(' | ').slice(0, 600)}` : '';
  return new TrainerError(
    'EngineCrashed',
    `the training engine ${how}, ${crashes} times without a checkpoint in between.${words}`,
  );
}

/** `GET /healthz` at the pod's address; outside a pod nobody asks. */
async function serveHealth(
  address: string | undefined,
  status: Status,
  note: (line: string) => void,
): Promise<Server | undefined> {
  if (!address) return undefined;
  const server = createServer((request, response) => {
    const known = request.url === '/healthz';
    const { heardAt, ...rest } = status;
    const body = known
      ? { ...rest, secondsSinceHeard: (Date.now() - heardAt) / 1000 }
      : { error: 'only /healthz is here' };
    response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
  });
  return new Promise((resolve) => {
    server.on('error', (error) => {
      note(`no health endpoint: ${error.message}`);
      resolve(undefined);
    });
    server.listen(HEALTH_PORT, address, () => resolve(server));
  });
}
