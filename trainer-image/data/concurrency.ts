/** Bounded concurrency: so many at a time, and so many bytes at a time. */

/** Runs `work` on each item, at most `width` at a time. The first failure stops the rest and is thrown. */
export async function forEachConcurrently<T>(
  items: Iterable<T>,
  width: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const iterator = items[Symbol.iterator]();
  let failed = false;
  const worker = async () => {
    for (let next = iterator.next(); !next.done && !failed; next = iterator.next()) {
      try {
        await work(next.value);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: width }, worker));
  const failure = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failure) throw failure.reason;
}

/** The results of `work` in the order of `items`, computed up to `width` ahead. */
export async function* mapAhead<T, R>(
  items: Iterable<T>,
  width: number,
  work: (item: T) => Promise<R>,
): AsyncGenerator<R> {
  const ahead: Promise<R>[] = [];
  for (const item of items) {
    const result = work(item);
    // Awaited in its turn; until then a failure is not unhandled.
    result.catch(() => {});
    ahead.push(result);
    if (ahead.length >= width) yield await ahead.shift()!;
  }
  for (const result of ahead) yield await result;
}

export interface Budget {
  /** Waits until `cost` fits beside what others hold; more than the whole budget runs alone. Call what it returns to give back. */
  take(cost: number): Promise<() => void>;
}

/** First come, first served, so that a large cost is not starved by small ones. */
export function createBudget(total: number): Budget {
  let free = total;
  const waiting: { cost: number; start: () => void }[] = [];
  const advance = () => {
    while (waiting.length > 0 && waiting[0]!.cost <= free) {
      const { cost, start } = waiting.shift()!;
      free -= cost;
      start();
    }
  };
  return {
    async take(wanted) {
      const cost = Math.min(wanted, total);
      await new Promise<void>((start) => {
        waiting.push({ cost, start });
        advance();
      });
      return () => {
        free += cost;
        advance();
      };
    },
  };
}
