/** One at a time, across the processes of this machine. */
import { createHash } from 'node:crypto';
import { connect, createServer } from 'node:net';
import { resolve } from 'node:path';

/**
 * Runs `work` while no other process of this machine does so for the same path; `waiting` is called once if it has to wait.
 *
 * The lock is a socket in Linux's abstract namespace: it is taken in one step, and the kernel gives it back when its
 * holder ends, however that ends.
 */
export async function locked<T>(path: string, work: () => Promise<T>, waiting: () => void = () => {}): Promise<T> {
  const name = `\0fovea-${createHash('sha256').update(resolve(path)).digest('hex')}`;
  for (let first = true; ; first = false) {
    const server = await take(name);
    if (server) {
      try {
        return await work();
      } finally {
        server.destroy();
      }
    }
    if (first) waiting();
    await ended(name);
  }
}

/** The lock, or undefined while another holds it. */
function take(name: string): Promise<{ destroy(): void } | undefined> {
  return new Promise((done, failed) => {
    const waiters = new Set<{ destroy(): void }>();
    const server = createServer((waiter) => {
      waiters.add(waiter);
      waiter.on('error', () => {}).on('close', () => waiters.delete(waiter));
    });
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? done(undefined) : failed(error),
    );
    server.listen(name, () =>
      done({
        destroy() {
          server.close();
          for (const waiter of waiters) waiter.destroy();
        },
      }),
    );
  });
}

/** Comes back when the holder has let go: its end of the connection is closed. */
function ended(name: string): Promise<void> {
  return new Promise((done) => {
    connect(name)
      .on('error', () => {})
      .on('close', () => done())
      .resume();
  });
}
