/**
 * A queue of keys. A key waits at most once; while one is worked on it is not given out again, and if added meanwhile it runs once
 * more afterwards. So what is worked on is always the latest state, one worker a key. (After client-go's util/workqueue.)
 */
import { backoff } from './backoff.ts';

export interface QueueOptions {
  /** First delay after a failure in ms; doubles with each. */
  baseDelay?: number;
  maxDelay?: number;
  now?: () => number;
}

export class Queue {
  readonly #ready: string[] = [];
  /** Keys that wait or must run again, with the time they were added. */
  readonly #dirty = new Map<string, number>();
  readonly #processing = new Set<string>();
  readonly #delayed = new Map<string, { at: number; timer: NodeJS.Timeout }>();
  readonly #failures = new Map<string, number>();
  readonly #takers: ((key: string | undefined) => void)[] = [];
  readonly #options: Required<QueueOptions>;
  #closed = false;
  #idle: (() => void)[] = [];

  constructor(options: QueueOptions = {}) {
    this.#options = { baseDelay: 20, maxDelay: 60_000, now: () => performance.now(), ...options };
  }

  add(key: string): void {
    if (this.#closed || this.#dirty.has(key)) return;
    this.#dirty.set(key, this.#options.now());
    if (this.#processing.has(key)) return;
    this.#ready.push(key);
    this.#handOut();
  }

  /** Adds the key in `ms`; of two such calls the earlier time counts. */
  addAfter(key: string, ms: number): void {
    if (this.#closed) return;
    if (ms <= 0) {
      this.add(key);
      return;
    }
    const at = this.#options.now() + ms;
    const earlier = this.#delayed.get(key);
    if (earlier) {
      if (earlier.at <= at) return;
      clearTimeout(earlier.timer);
    }
    const timer = setTimeout(
      () => {
        this.#delayed.delete(key);
        this.add(key);
      },
      Math.min(ms, 2 ** 31 - 1),
    );
    this.#delayed.set(key, { at, timer });
  }

  /** Adds the key after a delay that doubles with each call until `forget`. */
  addFailed(key: string): void {
    const failures = (this.#failures.get(key) ?? 0) + 1;
    this.#failures.set(key, failures);
    const ceiling = Math.min(this.#options.maxDelay, this.#options.baseDelay * 2 ** Math.min(failures - 1, 30));
    // Half fixed, half drawn: it must rise, and those that failed together must part.
    this.addAfter(key, ceiling / 2 + backoff(1, ceiling / 2, ceiling / 2));
  }

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
    if (this.#processing.size === 0) {
      for (const resolve of this.#idle.splice(0)) resolve();
    }
  }

  /** Gives out nothing more; resolves when what is in work is done. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { timer } of this.#delayed.values()) clearTimeout(timer);
    this.#delayed.clear();
    for (const resolve of this.#takers.splice(0)) resolve(undefined);
    if (this.#processing.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Keys that wait. */
  depth(): number {
    return this.#ready.length;
  }

  /** Seconds the longest waiting key has waited. */
  age(): number {
    const oldest = Math.min(...this.#ready.map((key) => this.#dirty.get(key) ?? Infinity));
    return Number.isFinite(oldest) ? (this.#options.now() - oldest) / 1000 : 0;
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
