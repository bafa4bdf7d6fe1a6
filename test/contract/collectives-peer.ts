/** Rank 1 of a ring, in a process of its own: sums twos once, and is then gone without a word. */
import { openRing, type RingOptions } from '../../trainer-image/collectives/index.ts';

process.once('message', async (options: RingOptions & { secret: number[] }) => {
  const ring = await openRing({ ...options, secret: Uint8Array.from(options.secret) });
  const values = ring.allocate(1000);
  values.fill(2);
  ring.reduceNow(values);
  process.kill(process.pid, 'SIGKILL');
});
