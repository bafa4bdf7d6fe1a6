/** Works off a queue with a bounded number of concurrent reconciles. */
import type { Queue } from './queue.ts';

/** The user must change something: no retry; the next change of the object wakes it. */
export class TerminalError extends Error {}

export interface ControllerOptions {
  queue: Queue;
  /** Brings the cluster nearer to what the object of this key wants. Safe to repeat. May ask to be called again in some time. */
  reconcile: (key: string) => Promise<{ requeueAfterSeconds?: number } | undefined>;
  /** Reconciles at once. Default 8. */
  concurrency?: number;
  onError?: (key: string, error: unknown) => void;
  observe?: (outcome: 'success' | 'error' | 'terminal', seconds: number) => void;
}

export interface Controller {
  /** Takes nothing more and resolves when what is in work is done. */
  stop(): Promise<void>;
}

export function startController(options: ControllerOptions): Controller {
  const { queue, reconcile, concurrency = 8, onError = () => {}, observe = () => {} } = options;

  async function worker(): Promise<void> {
    for (let key = await queue.take(); key !== undefined; key = await queue.take()) {
      const started = performance.now();
      let outcome: 'success' | 'error' | 'terminal' = 'success';
      try {
        const result = await reconcile(key);
        queue.forget(key);
        if (result?.requeueAfterSeconds !== undefined) queue.addAfter(key, result.requeueAfterSeconds * 1000);
      } catch (error) {
        outcome = error instanceof TerminalError ? 'terminal' : 'error';
        if (outcome === 'terminal') queue.forget(key);
        else queue.addFailed(key);
        onError(key, error);
      } finally {
        observe(outcome, (performance.now() - started) / 1000);
        queue.done(key);
      }
    }
  }

  const workers = Array.from({ length: concurrency }, worker);
  return {
    stop: async () => {
      await queue.close();
      await Promise.all(workers);
    },
  };
}
