/** From the ring that the control plane names to the open one, in the engine's process. */
import { type Collective, openRing } from '../collectives/index.ts';
import type { Ring } from '../contract.ts';

/** A worker that is told to stop gives its ring this long to finish the step and save; then it leaves by itself. */
const STOP_SECONDS = 20;

/**
 * Meets the members of a ring.
 * @param signal aborted when this worker is told to stop; the ring then ends soon, whatever its peers do
 * @throws RingBroken if they did not meet; the signal's reason
 */
export async function enterRing(ring: Ring, signal: AbortSignal): Promise<Collective> {
  const { generation, rank, members, secret } = ring;
  signal.throwIfAborted();
  const opening = openRing({ generation, rank, members, secret: Buffer.from(secret, 'base64') });
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  let open: Collective;
  try {
    open = await Promise.race([opening, aborted.promise]);
  } catch (error) {
    opening.then((late) => late.close()).catch(() => {});
    throw error;
  } finally {
    signal.removeEventListener('abort', abort);
  }
  const leaveSoon = () => setTimeout(() => void open.close(), STOP_SECONDS * 1000).unref();
  if (signal.aborted) leaveSoon();
  else signal.addEventListener('abort', leaveSoon, { once: true });
  return open;
}
