/** Learning-rate schedules: pure functions of the step. */
import type { Schedule } from '../contract.ts';

/**
 * Learning rate of `step` (from 0) out of `steps`: a linear rise over the first `warmupSteps` (the last of which has the peak),
 * then the peak (`Constant`) or half a cosine from the peak to 0 over what is left (Loshchilov and Hutter 2017, one cycle). The
 * step after the last would have 0.
 */
export function learningRate(schedule: Required<Schedule>, peak: number, step: number, steps: number): number {
  const warmup = Math.min(schedule.warmupSteps, steps);
  if (step < warmup) return (peak * (step + 1)) / warmup;
  if (schedule.type === 'Constant') return peak;
  const progress = (step - warmup) / Math.max(1, steps - warmup);
  return (peak * (1 + Math.cos(Math.PI * Math.min(1, progress)))) / 2;
}
