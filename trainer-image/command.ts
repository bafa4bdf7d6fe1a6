/** What a command (`prepare`, `train`, `export`, `serve`) is given. Each is a module that exports `run(task, context)`. */
import type { Reporter } from './progress.ts';
import type { Store } from './store.ts';

export interface Context {
  store: Store;
  reporter: Reporter;
  /** Aborted when the process is told to stop. A command that stops early throws; one that returns is done. */
  signal: AbortSignal;
  /** A folder for files that may vanish with the pod. */
  scratch: string;
  env: NodeJS.ProcessEnv;
}
