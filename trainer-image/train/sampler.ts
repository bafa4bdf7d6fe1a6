/** The order of samples: a function of (seed, epoch) alone. */
import { randomStream, STREAM } from '../philox.ts';

/** A permutation of 0 … `count` − 1 (Fisher and Yates; Durstenfeld 1964). */
export function epochOrder(seed: number, epoch: number, count: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  const random = randomStream(seed, STREAM.ORDER, epoch, 0);
  for (let i = count - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    const held = order[i]!;
    order[i] = order[j]!;
    order[j] = held;
  }
  return order;
}
