/**
 * Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). A draw is a
 * function of key and counter alone, so the same (seed, epoch, sample) gives the same numbers in any process and order.
 */

/** Low and high half of the 64-bit product of two unsigned 32-bit numbers, the high one returned. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle % 0x10000);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}

/** Four unsigned 32-bit numbers of a key (two words) and a counter (four words), written into `out`. */
export function philox(
  out: Uint32Array,
  [k0, k1]: readonly [number, number],
  [a, b, c, d]: readonly [number, number, number, number],
): void {
  let [x0, x1, x2, x3, key0, key1] = [a >>> 0, b >>> 0, c >>> 0, d >>> 0, k0 >>> 0, k1 >>> 0];
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, x0);
    const low0 = Math.imul(0xd2511f53, x0) >>> 0;
    const high1 = multiplyHigh(0xcd9e8d57, x2);
    const low1 = Math.imul(0xcd9e8d57, x2) >>> 0;
    x0 = (high1 ^ x1 ^ key0) >>> 0;
    x1 = low1;
    x2 = (high0 ^ x3 ^ key1) >>> 0;
    x3 = low0;
    key0 = (key0 + 0x9e3779b9) >>> 0;
    key1 = (key1 + 0xbb67ae85) >>> 0;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

/** What a draw is for; streams never meet, whatever the other counters are. */
export const STREAM = { WEIGHTS: 1, ORDER: 2, AUGMENTATION: 3 } as const;

export interface Stream {
  /** Uniform in [0, 1), 32 bits. */
  uniform(): number;
  /** Uniform integer in [0, bound), bound ≤ 2^32. The bias of one multiplication, below bound / 2^32, is accepted. */
  integer(bound: number): number;
  /** Normal with mean 0 and variance 1 (Box and Muller 1958). */
  normal(): number;
}

/** The numbers of (seed, stream, a, b), in order. */
export function randomStream(seed: number, stream: number, a: number, b: number): Stream {
  const words = new Uint32Array(4);
  let block = 0;
  let at = 4;
  const word = () => {
    if (at === 4) {
      philox(words, [seed, stream], [a, b, block++, 0]);
      at = 0;
    }
    return words[at++]!;
  };
  const uniform = () => word() / 2 ** 32;
  let spare: number | undefined;
  return {
    uniform,
    integer: (bound) => Math.floor(uniform() * bound),
    normal() {
      if (spare !== undefined) {
        const value = spare;
        spare = undefined;
        return value;
      }
      const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
      const angle = 2 * Math.PI * uniform();
      spare = radius * Math.sin(angle);
      return radius * Math.cos(angle);
    },
  };
}
