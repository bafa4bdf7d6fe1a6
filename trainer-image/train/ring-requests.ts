/** The supervisor's side of rings: asks the intake for one, by long poll, for as long as the engine wants one. */
import { setTimeout as delay } from 'node:timers/promises';
import { RING_POLL_SECONDS, Ring, type RingRequest } from '../contract.ts';
import { postToIntake } from '../intake.ts';

/** A request that takes this much longer than it may be held is dropped. */
const GRACE_SECONDS = 10;
/** Pauses after requests that failed, doubled from the first to the longest, each shortened at random by up to a half. */
const FIRST_PAUSE_SECONDS = 0.5;
const LONGEST_PAUSE_SECONDS = 15;

export interface RingRequests {
  /**
   * A ring newer than any that was handed out before. Asks until there is one: an intake that is away, or does not know this pod yet,
   * is asked again.
   * @throws the signal's reason
   */
  next(signal: AbortSignal): Promise<Ring>;
}

/** `note` gets a line when what the intake says changes. */
export function createRingRequests(env: NodeJS.ProcessEnv, note: (line: string) => void): RingRequests {
  /** Newest generation handed out; an engine that is started again asks for the one after. */
  let after = 0;

  /** Undefined: ask again at once. */
  const ask = async (signal: AbortSignal): Promise<Ring | undefined> => {
    const timeout = AbortSignal.timeout((RING_POLL_SECONDS + GRACE_SECONDS) * 1000);
    const request: RingRequest = { after };
    const { status, body } = await postToIntake(env, '/v1/ring', request, AbortSignal.any([signal, timeout]));
    if (status === 204) return undefined;
    if (status !== 200) throw new Error(`the intake answers ${status} ${body.slice(0, 200)}`);
    const ring = Ring.parse(JSON.parse(body));
    if (ring.generation <= after) {
      throw new Error(`the intake gives the ring of generation ${ring.generation}, asked for one after ${after}`);
    }
    return ring;
  };

  return {
    async next(signal) {
      let pause = FIRST_PAUSE_SECONDS;
      let said = '';
      for (;;) {
        signal.throwIfAborted();
        try {
          const ring = await ask(signal);
          pause = FIRST_PAUSE_SECONDS;
          if (!ring) continue;
          after = ring.generation;
          return ring;
        } catch (error) {
          signal.throwIfAborted();
          const words = `no ring yet: ${(error as Error).message}`;
          if (words !== said) note(words);
          said = words;
        }
        await delay(pause * 1000 * (1 - Math.random() / 2), undefined, { signal }).catch(() => {});
        pause = Math.min(LONGEST_PAUSE_SECONDS, 2 * pause);
      }
    },
  };
}
