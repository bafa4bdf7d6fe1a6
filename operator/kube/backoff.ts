/**
 * Exponential back-off with full jitter: a uniform draw from (0, base · 2^(attempt−1)], at most `cap`. Jitter keeps those that
 * failed together from coming back together (Brooker 2015, "Exponential Backoff and Jitter").
 *
 * @param attempt from 1
 * @param base in ms
 * @param cap in ms
 * @returns ms
 */
export function backoff(attempt: number, base: number, cap: number, random: () => number = Math.random): number {
  const ceiling = Math.min(cap, base * 2 ** Math.min(attempt - 1, 30));
  return Math.max(1, ceiling * random());
}
