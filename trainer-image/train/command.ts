/** `train`: a dataset, a model and a recipe to trained weights. */
import type { Context } from '../command.ts';
import type { TrainResult, TrainTask } from '../contract.ts';
import { supervise } from './supervisor.ts';

export function run(task: TrainTask, context: Context): Promise<TrainResult> {
  return supervise(task, context);
}
