/** Works off a queue with a bounded number of concurrent reconciles. */
import type { Queue } from './queue.ts';

/** The user must change something: no retry; the next change of the object wakes it. */
export class TerminalError extends Error {}

/** Something else must happen first, whose event wakes the key: no retry, and no failure that later ones wait longer for. */
export class WaitingError extends Error {}

export type Outcome = 'success' | 'terminal' | 'waiting' | 'error';

export interface ControllerOptions {
  queue: Queue;
  /**
   * Brings the cluster nearer to what the object of this key wants. Safe to repeat. May ask to be called again in some time.
   * Throws TerminalError, WaitingError, or anything else for what passes: that is tried again, ever more slowly. The signal
   * aborts when the controller stops.
   */
  reconcile: (key: string, signal: AbortSignal) => Promise<{ requeueAfterSeconds?: number } | undefined>;
  /** Runs one reconcile and what is observed of it; here a caller binds what is logged meanwhile to the key. */
  around?: (key: string, run: () => Promise<void>) => Promise<void>;
  /** Reconciles at once. Default 8. */
  concurrency?: number;
  /** Called with what a reconcile threw, unless it waits or was stopped. */
  onError?: (key: string, error: unknown) => void;
  observe?: (outcome: Outcome, seconds: number) => void;
}

export interface Controller {
  /** Takes nothing more and resolves when what is in work is done. */
  stop(): Promise<void>;
}

export function startController(options: ControllerOptions): Controller {
  const { queue, reconcile, concurrency = 8, onError = () => {}, observe = () => {} } = options;
  const { around = (_key, run) => run() } = options;
  const stopping = new AbortController();

  async function work(key: string): Promise<Outcome> {
    try {
      const result = await reconcile(key, stopping.signal);
      queue.forget(key);
      if (result?.requeueAfterSeconds !== undefined) queue.addAfter(key, result.requeueAfterSeconds * 1000);
      return 'success';
    } catch (error) {
      if (error instanceof WaitingError) {
        queue.forget(key);
        return 'waiting';
      }
      if (!stopping.signal.aborted) onError(key, error);
      if (error instanceof TerminalError) {
        queue.forget(key);
        return 'terminal';
      }
      queue.addFailed(key);
      return 'error';
    }
  }

  async function worker(): Promise<void> {
    for (let key = await queue.take(); key !== undefined; key = await queue.take()) {
      const taken = key;
      await around(taken, async () => {
        const started = performance.now();
        observe(await work(taken), (performance.now() - started) / 1000);
      });
      queue.done(key);
    }
  }

  const workers = Array.from({ length: concurrency }, worker);
  return {
    stop: async () => {
      stopping.abort();
      await queue.close();
      await Promise.all(workers);
    },
  };
}
