/**
 * What workers sum in each step: gradients, batch-norm statistics, the loss and whether somebody was told to stop. All lies in one
 * array of shared memory, in the order in which the backward pass fills it, and is summed in buckets while that pass goes on.
 */
import type { Collective } from '../collectives/index.ts';
import type { TrainingEngine, ValueSpec } from '../engine/training.ts';

/** Values of a bucket, 6 MiB: large enough that messages cost little, small enough that the first leaves early. */
const BUCKET_VALUES = 1.5 * 1024 * 1024;

/** Bytes of a cache line; values start at one, so that the engine and the ring never write to the same. */
const ALIGNMENT_VALUES = 16;

export interface BucketLayout {
  /** Where each parameter's values are: `[start, end)`. */
  ranges: ReadonlyMap<string, { start: number; end: number; bucket: number }>;
  /** By order of summing: where it lies and how many parameters fill it. */
  buckets: readonly { start: number; end: number; parameters: number }[];
  length: number;
}

/** Cuts values, in the given order, into buckets of at least `size`; `tail` always goes into the last one. */
export function layOutBuckets(
  order: readonly ValueSpec[],
  tail: readonly ValueSpec[],
  size = BUCKET_VALUES,
): BucketLayout {
  const ranges = new Map<string, { start: number; end: number; bucket: number }>();
  const buckets: { start: number; end: number; parameters: number }[] = [];
  let at = 0;
  let open = { start: 0, end: 0, parameters: 0 };
  const add = ({ name, length }: ValueSpec) => {
    ranges.set(name, { start: at, end: at + length, bucket: buckets.length });
    at += Math.ceil(length / ALIGNMENT_VALUES) * ALIGNMENT_VALUES;
    open.end = at;
    open.parameters++;
  };
  for (const spec of order) {
    if (open.end - open.start >= size) {
      buckets.push(open);
      open = { start: at, end: at, parameters: 0 };
    }
    add(spec);
  }
  for (const spec of tail) add(spec);
  buckets.push(open);
  return { ranges, buckets, length: at };
}

export interface StepOutcome {
  /** Mean over the whole batch. */
  loss: number;
  /** Some worker was told to stop. */
  stop: boolean;
}

/** Names no parameter has. */
const LOSS = '(loss)';
const STOP = '(stop)';

/**
 * Steps of workers that each compute their share of a batch. The update happens only once all is summed, and is then the same, bit
 * by bit, everywhere: a step that a broken ring cuts short leaves the engine as it was.
 */
export function createSharedStep(engine: TrainingEngine, ring: Collective) {
  const { gradients, statistics } = engine.exchanged;
  const { ranges, buckets, length } = layOutBuckets(gradients, [
    ...statistics,
    { name: LOSS, length: 1 },
    { name: STOP, length: 1 },
  ]);
  const values = ring.allocate(length);
  const views = new Map([...ranges].map(([name, { start, end }]) => [name, values.subarray(start, end)]));

  /**
   * @param batchSize samples of all shares together
   * @param stopping whether this worker was told to stop
   * @throws RingBroken
   */
  return async (
    { pixels, labels, batchSize }: { pixels: Uint8Array; labels: Int32Array; batchSize: number },
    learningRate: number,
    step: number,
    stopping: () => boolean,
  ): Promise<StepOutcome> => {
    const missing = buckets.map(({ parameters }) => parameters);
    const put = (name: string, value: Float32Array) => {
      const { start, bucket } = ranges.get(name)!;
      values.set(value, start);
      missing[bucket]!--;
      if (missing[bucket] === 0) ring.reduce(values, buckets[bucket]!.start, buckets[bucket]!.end);
    };
    const own = engine.differentiate(pixels, labels, batchSize, put);
    const share = labels.length / batchSize;
    for (const [name, value] of own.statistics) {
      put(
        name,
        value.map((v) => v * share),
      );
    }
    put(LOSS, Float32Array.of(own.loss));
    put(STOP, Float32Array.of(stopping() ? 1 : 0));
    await ring.reduced();
    const loss = views.get(LOSS)![0]!;
    if (Number.isFinite(loss)) engine.update(views, learningRate, step);
    return { loss, stop: views.get(STOP)![0]! > 0 };
  };
}

/** The contiguous part of `count` things that falls to a rank; parts differ by at most 1. */
export function shareOf(count: number, rank: number, world: number): { start: number; end: number } {
  return { start: Math.floor((count * rank) / world), end: Math.floor((count * (rank + 1)) / world) };
}
