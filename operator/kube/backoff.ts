/**
 * Exponential back-off: half of it fixed, so that the rate of tries falls whatever is drawn; half drawn, so that those that
 * failed together do not come back together (Brooker 2015, "Exponential Backoff and Jitter", equal jitter).
 *
 * @param attempt failures so far, from 1
 * @param base in ms; what the first failure waits at most
 * @param cap in ms
 * @param random uniform in [0, 1)
 * @returns ms, within [c/2, c] of c = min(cap, base · 2^(attempt−1))
 */
export function backoff(attempt: number, base: number, cap: number, random: () => number = Math.random): number {
  const ceiling = Math.min(cap, base * 2 ** Math.min(attempt - 1, 30));
  return ceiling / 2 + (ceiling / 2) * random();
}
