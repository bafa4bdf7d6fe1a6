/** Progress from step counts: speed and time left by the steps of this process. */
import type { Metric, Progress } from '../contract.ts';

export type Meter = (epoch: number, step: number, metrics: readonly Metric[]) => Progress;

export function createMeter({ epochs, steps, batchSize }: { epochs: number; steps: number; batchSize: number }): Meter {
  const started = performance.now();
  let first: number | undefined;
  return (epoch, step, metrics) => {
    first ??= step - 1;
    const secondsPerStep = (performance.now() - started) / 1000 / Math.max(1, step - first);
    return {
      stage: 'training',
      percent: (100 * step) / steps,
      epoch,
      epochs,
      step,
      etaSeconds: secondsPerStep * (steps - step),
      samplesPerSecond: batchSize / secondsPerStep,
      metrics: dropRepeated(metrics),
    };
  };
}

/** The first metric of each name. */
function dropRepeated(metrics: readonly Metric[]): Metric[] {
  return metrics.filter(({ name }, i) => metrics.findIndex((m) => m.name === name) === i);
}
