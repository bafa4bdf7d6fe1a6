/**
 * A queue of keys. A key waits at most once; while one is worked on it is not given out again, and if added meanwhile it runs once
 * more afterwards. So what is worked on is always the latest state, one worker a key. (After client-go's util/workqueue.)
 */
import { backoff } from './backoff.ts';

export interface QueueOptions {
  /** Longest delay after the first failure in ms; doubles with each. Default 20. */
  baseDelay?: number;
  /** In ms. Default 60,000. */
  maxDelay?: number;
}

export class Queue {
  /** Keys to give out, in the order in which they came. */
  readonly #ready: string[] = [];
  /** Keys that wait or must run again, with the time (ms) they were added. */
  readonly #dirty = new Map<string, number>();
  /** Keys in work. */
  readonly #processing = new Set<string>();
  readonly #delayed = new Map<string, { at: number; timer: NodeJS.Timeout }>();
  readonly #failures = new Map<string, number>();
  readonly #takers: ((key: string | undefined) => void)[] = [];
  readonly #baseDelay: number;
  readonly #maxDelay: number;
  #closed = false;
  #idle: (() => void)[] = [];

  constructor({ baseDelay = 20, maxDelay = 60_000 }: QueueOptions = {}) {
    this.#baseDelay = baseDelay;
    this.#maxDelay = maxDelay;
  }

  add(key: string): void {
    if (this.#closed || this.#dirty.has(key)) return;
    this.#dirty.set(key, performance.now());
    if (this.#processing.has(key)) return;
    this.#ready.push(key);
    this.#handOut();
  }

  /** Adds the key in `ms`; of several such calls the earliest time counts. */
  addAfter(key: string, ms: number): void {
    if (this.#closed) return;
    if (!(ms > 0)) {
      this.add(key);
      return;
    }
    // What a timer can hold (25 days) is longer than any delay that is meant.
    const wait = Math.min(ms, 2 ** 31 - 1);
    const at = performance.now() + wait;
    const earlier = this.#delayed.get(key);
    if (earlier) {
      if (earlier.at <= at) return;
      clearTimeout(earlier.timer);
    }
    const timer = setTimeout(() => {
      this.#delayed.delete(key);
      this.add(key);
    }, wait);
    this.#delayed.set(key, { at, timer });
  }

  /** Adds the key after a delay that doubles with each call until `forget`. */
  addFailed(key: string): void {
    const failures = (this.#failures.get(key) ?? 0) + 1;
    this.#failures.set(key, failures);
    this.addAfter(key, backoff(failures, this.#baseDelay, this.#maxDelay));
  }

  /** The key's next failure counts as the first. */
  forget(key: string): void {
    this.#failures.delete(key);
  }

  /** The next key, when there is one; undefined when the queue is closed. Call `done` with it afterwards. */
  take(): Promise<string | undefined> {
    if (this.#closed) return Promise.resolve(undefined);
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    this.#takers.push(resolve);
    this.#handOut();
    return promise;
  }

  done(key: string): void {
    this.#processing.delete(key);
    if (this.#dirty.has(key) && !this.#closed) {
      this.#ready.push(key);
      this.#handOut();
    }
    if (this.#processing.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** Gives out nothing more and forgets what waits; resolves when what is in work is done. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { timer } of this.#delayed.values()) clearTimeout(timer);
    this.#delayed.clear();
    this.#ready.length = 0;
    for (const resolve of this.#takers.splice(0)) resolve(undefined);
    if (this.#processing.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Keys that wait for a worker. */
  depth(): number {
    return this.#ready.length;
  }

  /** Seconds the longest waiting key has waited. */
  age(): number {
    const now = performance.now();
    let oldest = now;
    for (const key of this.#ready) oldest = Math.min(oldest, this.#dirty.get(key) ?? now);
    return (now - oldest) / 1000;
  }

  #handOut(): void {
    while (this.#ready.length > 0 && this.#takers.length > 0) {
      const key = this.#ready.shift()!;
      this.#dirty.delete(key);
      this.#processing.add(key);
      this.#takers.shift()!(key);
    }
  }
}
