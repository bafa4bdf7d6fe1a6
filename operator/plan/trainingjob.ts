/** A TrainingJob's run: its task, and its status from a result. */
import { AdamW, Checkpoints, Model, Recipe, SGD } from '../../trainer-image/contract.ts';
import { checkSpec } from '../api/check.ts';
import { Policy, type TrainingJob, type TrainingJobStatus } from '../api/trainingjob.ts';
import { threads, withDefaults } from '../manifests/resources.ts';
import { decimal } from './decimal.ts';
import type { RunKind } from './run.ts';

/** Frozen when a run starts. */
export interface TrainingJobResolved {
  image: string;
  model: Model;
  recipe: Recipe;
}

export const TRAINING_JOB: RunKind<TrainingJob, TrainingJobResolved> = {
  component: 'trainingjob',
  doneReason: 'Trained',
  extra: ['Complete', 'Running', 'Failed'],
  rerun: 'OnSpecChange',
  check: (job) => checkSpec('TrainingJob', job),
  resolve: ({ spec }, options) => ({
    image: options.trainerImage,
    model: Model.parse(spec.trainer.builtIn!.model),
    recipe: resolveRecipe(spec.trainer.builtIn!.recipe),
  }),
  image: (resolved) => resolved.image,
  task: ({ spec }, { model, recipe }, run, [dataset]) => ({
    kind: 'train',
    run,
    dataset: { digest: dataset.digest },
    model,
    recipe,
    checkpoints: Checkpoints.parse(spec.checkpoints ?? {}),
    threads: threads(withDefaults('train', spec.workers?.resources)),
    workers: spec.workers?.replicas ?? 1,
    // Before a hang is concluded, so that its message can tell the stack.
    stackAfterSeconds: Math.min(300, Policy.parse(spec.policy ?? {}).hang.timeoutSeconds / 2),
  }),
  pod: ({ spec }) => ({ resources: withDefaults('train', spec.workers?.resources), pod: spec.workers?.pod }),
  workers: ({ spec }) => ({ replicas: spec.workers?.replicas ?? 1, policy: Policy.parse(spec.policy ?? {}) }),
  summarize: (result) => {
    if (result.kind !== 'train') return {};
    return {
      checkpoints: result.checkpoints,
      preprocessing: result.preprocessing,
      // Kept after the run, since the columns show it.
      progress: {
        stage: 'done',
        percent: 100,
        epoch: result.epochs,
        epochs: result.epochs,
        metrics: result.metrics.map(({ name, value }) => ({ name, value: decimal(value) })),
      },
    };
  },
  progress: (progress) => ({
    stage: progress.stage,
    percent: Math.floor(progress.percent),
    epoch: progress.epoch,
    epochs: progress.epochs,
    step: progress.step,
    etaSeconds: progress.etaSeconds === undefined ? undefined : Math.round(progress.etaSeconds),
    samplesPerSecond:
      progress.samplesPerSecond === undefined ? undefined : decimal(Math.round(progress.samplesPerSecond)),
    metrics: progress.metrics?.map(({ name, value }) => ({ name, value: decimal(value) })),
  }),
  describe: (status) => {
    const best = (status as TrainingJobStatus).checkpoints?.find((checkpoint) => checkpoint.name === 'Best');
    const accuracy = (status as TrainingJobStatus).progress?.metrics?.find(
      (metric) => metric.name === 'ValidationAccuracy',
    );
    return `Trained; the best model is of epoch ${best?.epoch} with validation accuracy ${accuracy?.value}.`;
  },
};

/** All defaults, also of the optimizer's own options, which the spec may leave out as a whole. */
function resolveRecipe(written: unknown): Recipe {
  const recipe = Recipe.parse(written ?? {});
  const { optimizer } = recipe;
  return {
    ...recipe,
    optimizer:
      optimizer.type === 'SGD'
        ? { ...optimizer, sgd: SGD.parse(optimizer.sgd ?? {}) }
        : { ...optimizer, adamW: AdamW.parse(optimizer.adamW ?? {}) },
  };
}
