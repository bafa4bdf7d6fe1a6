/** Waiting in tests: for a condition, never for a time. */
import { setTimeout as delay } from 'node:timers/promises';

/** Between two looks, in ms: short beside what is waited for. */
const PAUSE = 50;

/**
 * Asks until `what` gives something true, and returns it. An error counts as not yet.
 *
 * @param describe what was seen instead, for the message
 * @throws Error after `seconds`, with the last error as its cause
 */
export async function eventually<T>(
  what: () => Promise<T>,
  describe: () => string = () => `${what}`,
  seconds = 120,
): Promise<NonNullable<T>> {
  const deadline = performance.now() + seconds * 1000;
  for (;;) {
    let last: unknown;
    try {
      const found = await what();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) {
      throw new Error(`not within ${seconds} s: ${describe()}${last ? `: ${last}` : ''}`, { cause: last });
    }
    await delay(PAUSE);
  }
}
