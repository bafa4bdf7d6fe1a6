/** `serve`: answers for one exported model until it is told to stop. */
import { once } from 'node:events';
import type { Context } from '../command.ts';
import { ENV, type ServeTask } from '../contract.ts';
import { openModel } from './model.ts';
import { startServer } from './server.ts';

export async function run(task: ServeTask, { store, reporter, signal, env }: Context): Promise<void> {
  // Listening comes first: a pod that loads a large model is alive, and not ready.
  const server = await startServer({ ...task, host: env[ENV.POD_IP] || '127.0.0.1' });
  reporter.note(`listening on ${server.url}`);
  const stopped = signal.aborted ? Promise.resolve() : once(signal, 'abort');
  const bytes = await store.read(task.model.digest);
  const model = await openModel(bytes, task.model.digest, task.threads);
  if (!signal.aborted) {
    server.use(model);
    reporter.note(`serving "${task.name}" (${task.model.digest}) at ${server.url}`);
  }
  await Promise.race([stopped, model.broken]);
  const cut = await server.drain(task.drainSeconds);
  if (cut > 0) reporter.note(`${cut} requests were not answered within ${task.drainSeconds} s and were cut off`);
  await model.close();
}
