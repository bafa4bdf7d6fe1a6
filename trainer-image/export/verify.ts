/** How the logits of an export and of its source compare, and whether the export is good enough to be used. Pure. */
import type { VerifyLimits } from '../contract.ts';

/** Fewer held-out pictures say too little about accuracy. */
export const MIN_SAMPLES = 256;

export interface Measured {
  evaluated: number;
  /** Shares in [0, 1]. */
  accuracy: number;
  sourceAccuracy: number;
  /** Accuracy lost, in percentage points; negative if gained. */
  dropPoints: number;
  /** ‖a − b‖ / ‖b‖ over all logits; b are the source's. NaN if a logit is none. */
  logitDifference: number;
  /** The export's label for each picture, in their order. */
  predicted: Int32Array;
}

/** Sums up batch by batch, in double precision. */
export class Comparison {
  readonly #predicted: Int32Array;
  readonly #classes: number;
  #evaluated = 0;
  #right = 0;
  #sourceRight = 0;
  #difference = 0;
  #norm = 0;

  constructor(samples: number, classes: number) {
    this.#predicted = new Int32Array(samples);
    this.#classes = classes;
  }

  /** Logits of the export and of its source, `[n, classes]` each, with the `n` labels. */
  add(logits: Float32Array, source: Float32Array, labels: ArrayLike<number>): void {
    if (logits.length !== source.length || source.length !== labels.length * this.#classes) {
      throw new RangeError(`${logits.length} and ${source.length} logits for ${labels.length} labels`);
    }
    for (let i = 0; i < source.length; i++) {
      this.#difference += (logits[i] - source[i]) ** 2;
      this.#norm += source[i] ** 2;
    }
    for (let row = 0; row < labels.length; row++) {
      const predicted = argmax(logits, row * this.#classes, this.#classes);
      this.#predicted[this.#evaluated++] = predicted;
      if (predicted === labels[row]) this.#right += 1;
      if (argmax(source, row * this.#classes, this.#classes) === labels[row]) this.#sourceRight += 1;
    }
  }

  measured(): Measured {
    const evaluated = this.#evaluated;
    return {
      evaluated,
      accuracy: this.#right / evaluated,
      sourceAccuracy: this.#sourceRight / evaluated,
      // From the counts, so that equal accuracies differ by exactly 0.
      dropPoints: (100 * (this.#sourceRight - this.#right)) / evaluated,
      logitDifference: this.#difference === 0 ? 0 : Math.sqrt(this.#difference / this.#norm),
      predicted: this.#predicted,
    };
  }
}

/** Index of the largest of `count` values from `start` on; the first of equals. */
function argmax(values: Float32Array, start: number, count: number): number {
  let best = 0;
  for (let i = 1; i < count; i++) if (values[start + i] > values[start + best]) best = i;
  return best;
}

/** Why the export may not be used, in words; undefined if it holds all limits. */
export function judge(measured: Measured, limits: VerifyLimits): string | undefined {
  const { accuracy, sourceAccuracy, dropPoints, logitDifference } = measured;
  const said: string[] = [];
  // Written so that NaN fails.
  if (!(dropPoints <= limits.maxAccuracyDropPoints)) {
    said.push(
      `accuracy fell by ${dropPoints.toFixed(2)} points, from ${sourceAccuracy.toFixed(4)} to ${accuracy.toFixed(4)} (verify.maxAccuracyDropPoints: ${limits.maxAccuracyDropPoints})`,
    );
  }
  if (!(logitDifference <= limits.maxLogitDifference)) {
    said.push(
      `logits differ by ${logitDifference.toExponential(2)} (verify.maxLogitDifference: ${limits.maxLogitDifference})`,
    );
  }
  if (said.length === 0) return undefined;
  return `on ${measured.evaluated} pictures of the ${limits.split} split ${said.join('; ')}`;
}
