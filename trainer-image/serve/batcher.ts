/**
 * Dynamic batching: requests that come at about the same time run as one. One run is in flight at a time; what comes meanwhile
 * waits, and when the run ends the oldest go next, as many as fit. (Triton's dynamic batcher with one instance.)
 */

export interface BatchLimits {
  /** Most pictures of one run. */
  maxBatchSize: number;
  /** Longest wait of a request for others to fill its batch, in milliseconds. */
  maxDelay: number;
  /** Most pictures that may wait; more are refused. */
  maxQueued: number;
}

/** A waiting request: its pictures, and when it came (milliseconds on any clock). */
interface Waiting {
  count: number;
  arrived: number;
}

/**
 * What to do now, with no run in flight: run the first `take` requests, or look again in `wait` milliseconds.
 * A batch goes when it is full, when the next request would not fit, or when its oldest request has waited long enough.
 */
export function decideBatch(
  queue: readonly Waiting[],
  now: number,
  { maxBatchSize, maxDelay }: Pick<BatchLimits, 'maxBatchSize' | 'maxDelay'>,
): { take: number } | { wait: number } {
  let take = 0;
  let pictures = 0;
  while (take < queue.length && pictures + queue[take]!.count <= maxBatchSize) pictures += queue[take++]!.count;
  const oldest = queue[0];
  if (!oldest) return { wait: Number.POSITIVE_INFINITY };
  const full = pictures === maxBatchSize || take < queue.length;
  const wait = oldest.arrived + maxDelay - now;
  return full || wait <= 0 ? { take } : { wait };
}

/** The tensor of one request or of a batch: uint8 or float32, [N, C, H, W]. */
export type Pixels = Uint8Array | Float32Array;

/** What a run says: the logits, [N, classes], and how long the network took, in milliseconds. */
export interface RunResult {
  logits: Float32Array;
  computeTime: number;
}

/** What became of requests, for the metrics; times in milliseconds. */
export interface BatchObserver {
  /** Requests that wait for a run. */
  pending(requests: number): void;
  /** A batch has run. `queueTimes` has one entry a request. */
  ran(batch: {
    pictures: number;
    queueTimes: number[];
    inputTime: number;
    computeTime: number;
    outputTime: number;
  }): void;
}

/** The queue is full: the request was not begun, and may be sent again later. */
export class OverloadError extends Error {}

/** The run that a request was part of failed. */
export class InferenceError extends Error {}

interface Request extends Waiting {
  pixels: Pixels;
  resolve(logits: Float32Array): void;
  reject(error: unknown): void;
}

export class Batcher {
  readonly #limits: BatchLimits;
  readonly #run: (pixels: Pixels, count: number) => Promise<RunResult>;
  readonly #observer: BatchObserver;
  #queue: Request[] = [];
  #queued = 0;
  #running = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param run Gets a tensor of its own that it may keep or transfer. */
  constructor(
    limits: BatchLimits,
    run: (pixels: Pixels, count: number) => Promise<RunResult>,
    observer: BatchObserver,
  ) {
    this.#limits = limits;
    this.#run = run;
    this.#observer = observer;
  }

  /**
   * The logits, [count, classes], of `count` pictures, at most `maxBatchSize`.
   * @throws OverloadError at once if too many wait; InferenceError if the run fails; `signal`'s reason if that aborts first, and
   * a request that still waits is then never run.
   */
  submit(pixels: Pixels, count: number, signal: AbortSignal): Promise<Float32Array> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      if (this.#queued + count > this.#limits.maxQueued) {
        throw new OverloadError(`${this.#queued} pictures wait already; send the request again later`);
      }
      const settled = () => signal.removeEventListener('abort', cancel);
      const request: Request = {
        count,
        arrived: performance.now(),
        pixels,
        resolve: (logits) => {
          settled();
          resolve(logits);
        },
        reject: (error) => {
          settled();
          reject(error);
        },
      };
      const cancel = () => {
        const at = this.#queue.indexOf(request);
        if (at !== -1) {
          this.#remove(at, 1);
          this.#schedule();
        }
        reject(signal.reason);
      };
      signal.addEventListener('abort', cancel, { once: true });
      this.#queue.push(request);
      this.#queued += count;
      this.#observer.pending(this.#queue.length);
      this.#schedule();
    });
  }

  #remove(at: number, requests: number): Request[] {
    const removed = this.#queue.splice(at, requests);
    for (const { count } of removed) this.#queued -= count;
    this.#observer.pending(this.#queue.length);
    return removed;
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#running) return;
    const decision = decideBatch(this.#queue, performance.now(), this.#limits);
    if ('take' in decision) {
      void this.#runBatch(this.#remove(0, decision.take));
    } else if (decision.wait !== Number.POSITIVE_INFINITY) {
      this.#timer = setTimeout(() => this.#schedule(), Math.ceil(decision.wait));
    }
  }

  async #runBatch(batch: Request[]): Promise<void> {
    this.#running = true;
    const started = performance.now();
    const pictures = batch.reduce((sum, { count }) => sum + count, 0);
    try {
      const pixels = concatenate(batch.map((request) => request.pixels));
      const inputTime = performance.now() - started;
      const { logits, computeTime } = await this.#run(pixels, pictures);
      const ended = performance.now();
      const classes = logits.length / pictures;
      let at = 0;
      for (const request of batch) {
        request.resolve(logits.subarray(at, at + request.count * classes));
        at += request.count * classes;
      }
      this.#observer.ran({
        pictures,
        queueTimes: batch.map(({ arrived }) => started - arrived),
        inputTime,
        computeTime,
        outputTime: performance.now() - ended,
      });
    } catch (cause) {
      const message = `the model could not run this batch: ${cause instanceof Error ? cause.message : cause}`;
      for (const request of batch) request.reject(new InferenceError(message, { cause }));
    } finally {
      this.#running = false;
      this.#schedule();
    }
  }
}

/** One tensor of several of the same type. Always a copy: requests' tensors may be views of shared memory. */
function concatenate(parts: readonly Pixels[]): Pixels {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const whole = parts[0] instanceof Float32Array ? new Float32Array(length) : new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
