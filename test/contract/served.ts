/** A server with an example model, run in this process by its command. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ModelCard, ServeTask } from '../../trainer-image/contract.ts';
import { run } from '../../trainer-image/serve/command.ts';
import { openStore } from '../../trainer-image/store.ts';

export interface Served {
  /** `http://127.0.0.1:port` */
  url: string;
  digest: string;
  notes: string[];
  /** Tells the server to stop, as SIGTERM does, and waits until it has. */
  stop(): Promise<void>;
}

/** Serves `bytes` under the name `shoes`, and returns once the server is ready. */
export async function serveModel(bytes: Uint8Array, options: Partial<ServeTask> = {}): Promise<Served> {
  const folder = await mkdtemp(join(tmpdir(), 'fovea-serve-'));
  const store = await openStore(join(folder, 'store'));
  const { digest } = await store.putBytes(bytes);
  const task = ServeTask.parse({
    kind: 'serve',
    name: 'shoes',
    model: { digest },
    port: 0,
    drainSeconds: 4,
    ...options,
  });
  const stopping = new AbortController();
  const notes: string[] = [];
  let ended: Promise<void> = Promise.resolve();
  const url = await new Promise<string>((resolve, reject) => {
    const note = (line: string) => {
      notes.push(line);
      const url = /^serving .* at (http\S+)$/.exec(line)?.[1];
      if (url) resolve(url);
    };
    ended = run(task, {
      store,
      reporter: { report() {}, note, flush: async () => {} },
      signal: stopping.signal,
      scratch: folder,
      env: {},
    }).finally(() => rm(folder, { recursive: true }));
    ended.catch(reject);
  });
  return {
    url,
    digest,
    notes,
    stop: () => {
      stopping.abort();
      return ended;
    },
  };
}

/** [n, C, H, W] pixels that are not alike. */
export function examplePixels(card: ModelCard, n = 1): number[] {
  const { mean, height, width } = card.preprocessing;
  return Array.from({ length: n * mean.length * height * width }, (_, i) => (i * 7919 + (i >> 5) * 31) % 256);
}
