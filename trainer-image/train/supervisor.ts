/**
 * The pod's first process of a training run. It never computes, so it answers at once: signals, the health endpoint, and the intake,
 * which it asks for rings. The engine runs in a child; one that crashes is started again in place, to go on from its peers' state, or
 * from the last checkpoint.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer, type Server } from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Context } from '../command.ts';
import { ENV, EXIT, type TrainResult, type TrainTask } from '../contract.ts';
import { TrainerError, UserError } from '../errors.ts';
import type { EngineJob, FromEngine, ToEngine } from './engine-process.ts';
import { type Heartbeat, type Status, startHeartbeat } from './heartbeat.ts';
import { createRingRequests, type RingRequests } from './ring-requests.ts';
import { stackSocket } from './stack.ts';

const HEALTH_PORT = 8080;
/** An engine that crashes this often without getting further in between is given up. */
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

/**
 * Trains in a child process until it is done.
 * @throws TrainerError or UserError as the engine does; UserError NoIntake for several workers without one; EngineCrashed if it keeps
 * crashing; the signal's reason when told to stop, after the state was saved
 */
export async function supervise(task: TrainTask, context: Context): Promise<TrainResult> {
  const { signal, reporter, env } = context;
  if (task.workers > 1 && !env[ENV.INTAKE]) {
    throw new UserError(
      'NoIntake',
      `workers is ${task.workers}, and several workers find each other through the operator's intake, but ${ENV.INTAKE} is not set: ` +
        'train with workers=1, or make a TrainingJob of it',
    );
  }
  const job: EngineJob = { task, store: context.store.root, scratch: context.scratch };
  const status: Status = {
    state: 'starting',
    pid: undefined,
    restarts: 0,
    savedStep: undefined,
    progress: undefined,
    activity: undefined,
    heardAt: Date.now(),
    movedAt: Date.now(),
  };
  const stack = stackSocket();
  const health = await serveHealth(env[ENV.POD_IP], status, reporter.note);
  const { stackAfterSeconds } = task;
  const heartbeat = startHeartbeat(status, { reporter, stackAfterSeconds, stackAt: stack });
  const rings = createRingRequests(env, reporter.note);
  // Alone, a crash throws away what was done since the checkpoint; with peers, nothing.
  const reached = () => (task.workers > 1 ? status.progress?.step : status.savedStep) ?? -1;
  let furthest = -1;
  try {
    for (let crashes = 0; ; status.restarts++) {
      signal.throwIfAborted();
      const ending = await runEngine(job, context, { status, heartbeat, rings, stack });
      if (ending.type === 'result') return ending.result;
      if (ending.type === 'failure') throw failureOf(ending);
      signal.throwIfAborted();
      crashes = reached() > furthest ? 1 : crashes + 1;
      furthest = Math.max(furthest, reached());
      if (crashes >= MAX_CRASHES) throw engineCrashed(crashes, ending);
      reporter.note(`the engine ${ending.how}; starting it again`);
      for (const line of ending.lastLines) reporter.note(`  ${line}`);
    }
  } finally {
    heartbeat.stop();
    health?.close();
    health?.closeAllConnections();
  }
}

/** What outlives one engine process. */
interface Surroundings {
  status: Status;
  heartbeat: Heartbeat;
  rings: RingRequests;
  /** Where the engine answers for its stack. */
  stack: string;
}

/** Runs one engine process to its end. When the signal aborts it is asked to save and stop, and waited for. */
function runEngine(
  job: EngineJob,
  { signal, reporter, env }: Context,
  { status, heartbeat, rings, stack }: Surroundings,
): Promise<Ending> {
  const program = fileURLToPath(new URL('./engine-process.ts', import.meta.url));
  const child = spawn(process.execPath, [program], { env, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  /** Aborted when this engine is gone: a ring is asked for on its behalf. */
  const gone = new AbortController();
  status.pid = child.pid;
  status.state = 'starting';
  status.activity = undefined;
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
        heartbeat.moved(message.progress);
        break;
      case 'activity': {
        const { type: _, ...activity } = message;
        status.activity = activity;
        break;
      }
      case 'join':
        rings.next(AbortSignal.any([signal, gone.signal])).then(
          (ring) => tell(child, { type: 'ring', ring }),
          () => {}, // told to stop, which the engine hears too, or gone
        );
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
  tell(child, { type: 'start', job, stack });

  return new Promise((resolve, reject) => {
    child.on('error', reject);
    // Not `exit`: the messages and the last lines come before `close`.
    child.on('close', (code, killedBy) => {
      signal.removeEventListener('abort', stop);
      gone.abort();
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
    const { heardAt, movedAt, ...rest } = status;
    const secondsSince = (time: number) => (Date.now() - time) / 1000;
    const body = known
      ? { ...rest, secondsSinceHeard: secondsSince(heardAt), standingSeconds: secondsSince(movedAt) }
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
