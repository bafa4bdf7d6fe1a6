/** Workers of one training run as their pods would run them: trainer processes at loopback addresses of their own, and a ring server. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { TerminationMessage, type TrainTask } from '../trainer-image/contract.ts';
import type { Status } from '../trainer-image/train/heartbeat.ts';
import { eventually } from './eventually.ts';
import { type RingServer, startRingServer } from './ring-server.ts';

export type Health = Omit<Status, 'heardAt' | 'movedAt'> & { secondsSinceHeard: number; standingSeconds: number };

export interface Ending {
  exitCode: number | null;
  termination: TerminationMessage;
  stderr: string;
}

export interface Trainer {
  child: ChildProcess;
  ended: Promise<Ending>;
  /** What its supervisor says; undefined while it says nothing. */
  health(): Promise<Health | undefined>;
  /** As if the node were lost: supervisor and engine end at once. */
  kill(): Promise<void>;
  /** The engine alone; resolves with its process id. */
  killEngine(): Promise<number>;
}

export interface Worker extends Trainer {
  pod: string;
  index: number;
}

export interface Workers {
  server: RingServer;
  /** By index; a replaced worker's place is taken by its successor. */
  all: Worker[];
  /** Starts the next pod of an index. */
  start(index: number): Worker;
  /** The step that a worker has reached; -1 before it trains. */
  step(index: number): Promise<number>;
  /** Waits until a worker has reached a step. */
  reached(index: number, step: number): Promise<Health>;
  endings(): Promise<Ending[]>;
  close(): Promise<void>;
}

const MAIN = join(import.meta.dirname, '../trainer-image/main.ts');

/**
 * Starts `task.workers` workers.
 *
 * @param network the first three numbers of their addresses, such as `127.72.1`; not used by others at the same time
 */
export async function startWorkers(
  task: Partial<TrainTask> & { workers: number },
  { root, store, network }: { root: string; store: string; network: string },
): Promise<Workers> {
  const server = await startRingServer(task.workers);
  const all: Worker[] = [];
  let started = 0;

  const start = (index: number): Worker => {
    const pod = `${task.run}-${index}-${started++}`;
    const address = `${network}.${started}`;
    server.admit({ pod, index, address });
    const trainer = startTrainer(task, { root, store, address, pod, intake: server.url });
    all[index] = { ...trainer, pod, index };
    return all[index];
  };

  for (let index = 0; index < task.workers; index++) start(index);
  const step = async (index: number) => (await all[index]!.health())?.progress?.step ?? -1;
  return {
    server,
    all,
    start,
    step,
    reached: (index, wanted) =>
      eventually(
        async () => {
          const health = await all[index]!.health();
          return (health?.progress?.step ?? -1) >= wanted ? health : undefined;
        },
        () => `worker ${index} at step ${wanted}`,
      ),
    endings: () => Promise.all(all.map(({ ended }) => ended)),
    async close() {
      await Promise.all(all.map((worker) => (worker.child.exitCode === null ? worker.kill() : undefined)));
      server.close();
    },
  };
}

/** Starts `train` as a pod would, at an address of its own. */
export function startTrainer(
  task: object,
  options: {
    root: string;
    store: string;
    address: string;
    pod?: string;
    /** Absent: the pod has none. */
    intake?: string;
    /** In bash, in which "$@" is the trainer's command line. */
    command?: string;
  },
): Trainer {
  const { root, store, address, pod = address, intake, command = 'exec "$@"' } = options;
  const folder = join(root, 'pods', pod);
  mkdirSync(folder, { recursive: true });
  const [token, termination] = [join(folder, 'token'), join(folder, 'termination')];
  writeFileSync(token, pod);
  const child = spawn('/bin/bash', ['-c', command, 'bash', process.execPath, MAIN, 'train'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {
      PATH: process.env.PATH,
      FOVEA_TASK: JSON.stringify({ kind: 'train', ...task }),
      FOVEA_STORE: store,
      FOVEA_SCRATCH: join(folder, 'scratch'),
      FOVEA_TERMINATION_LOG: termination,
      POD_IP: address,
      ...(intake && { FOVEA_INTAKE: intake, FOVEA_INTAKE_TOKEN_FILE: token }),
    },
  });
  const health = async () => {
    const response = await fetch(`http://${address}:8080/healthz`, { signal: AbortSignal.timeout(5000) }).catch(
      () => undefined,
    );
    return response?.ok ? ((await response.json()) as Health) : undefined;
  };
  const closed = new Promise<number | null>((resolve) => child.on('close', resolve));
  const ended = Promise.all([closed, text(child.stderr)]).then(([exitCode, stderr]) => {
    let message: TerminationMessage = {};
    try {
      message = TerminationMessage.parse(JSON.parse(readFileSync(termination, 'utf8')));
    } catch {
      // killed: it left no last word
    }
    return { exitCode, termination: message, stderr };
  });
  return {
    child,
    ended,
    health,
    async kill() {
      const engine = (await health())?.pid;
      child.kill('SIGKILL');
      if (engine) kill(engine);
      await ended;
    },
    async killEngine() {
      const { pid } = await eventually(async () => {
        const now = await health();
        return now?.pid ? now : undefined;
      });
      kill(pid!);
      return pid!;
    },
  };
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // it has ended by itself
  }
}
