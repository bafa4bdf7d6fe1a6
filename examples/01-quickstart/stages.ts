/** What the four objects say of themselves, as rows for people. Pure. */
import type { Condition } from '../../operator/api/conditions.ts';
import type { DatasetStatus } from '../../operator/api/dataset.ts';
import type { InferenceServiceStatus } from '../../operator/api/inferenceservice.ts';
import type { ModelExportStatus } from '../../operator/api/modelexport.ts';
import { RESOURCES } from '../../operator/api/object.ts';
import type { TrainingJobStatus } from '../../operator/api/trainingjob.ts';

/** In the order in which each consumes the one before it. */
export const STAGES = [
  RESOURCES.datasets,
  RESOURCES.trainingJobs,
  RESOURCES.modelExports,
  RESOURCES.inferenceServices,
] as const;
export type Kind = (typeof STAGES)[number]['kind'];

/** An object as the API server has it. */
export interface Observed {
  metadata: { generation?: number };
  status?: DatasetStatus & TrainingJobStatus & ModelExportStatus & InferenceServiceStatus;
}

export interface Stage {
  kind: Kind;
  state: 'Waiting' | 'Running' | 'Ready' | 'Failed';
  /** Share done, in percent. */
  percent: number;
  detail: string;
}

/** The stage of an object; undefined: it is not there yet. */
export function stageOf(kind: Kind, object: Observed | undefined): Stage {
  const { status = {}, metadata = {} } = object ?? {};
  // A condition of an earlier generation speaks of a spec that is no more.
  const find = (type: string): Condition | undefined =>
    status.conditions?.find((c) => c.type === type && (c.observedGeneration ?? 0) >= (metadata.generation ?? 0));
  const ready = find('Ready');
  const stalled = find('Stalled');
  if (ready?.status === 'True') return { kind, state: 'Ready', percent: 100, detail: result(kind, status) };
  if (stalled?.status === 'True') {
    return { kind, state: 'Failed', percent: 0, detail: `${stalled.reason}: ${stalled.message}` };
  }
  // Ready=Unknown: work goes on. Ready=False: something else must happen first, which the message names.
  const running = ready?.status === 'Unknown';
  if (running && status.progress) {
    return { kind, state: 'Running', percent: status.progress.percent, detail: work(status.progress) };
  }
  return { kind, state: running ? 'Running' : 'Waiting', percent: 0, detail: ready?.message ?? '' };
}

function result(kind: Kind, status: NonNullable<Observed['status']>): string {
  switch (kind) {
    case 'Dataset':
      return `${count(status.samples ?? 0)} pictures in ${status.classCount} classes`;
    case 'TrainingJob': {
      const { TrainLoss, ValidationAccuracy } = metricsOf(status.progress);
      return join(TrainLoss && `loss ${TrainLoss}`, ValidationAccuracy && `validation accuracy ${ValidationAccuracy}`);
    }
    case 'ModelExport': {
      const { accuracy = '', evaluated = 0, sizeBytes = 0 } = status.verification ?? {};
      const size = `${(sizeBytes / 1e6).toFixed(1)} MB`;
      return `verified: accuracy ${round(accuracy)} on ${count(evaluated)} test pictures, ${size}`;
    }
    case 'InferenceService':
      return `answers with ${status.replicas} replica${status.replicas === 1 ? '' : 's'}`;
  }
}

function work(progress: NonNullable<TrainingJobStatus['progress']>): string {
  const { stage, epoch, epochs, samplesPerSecond, etaSeconds } = progress;
  const { TrainLoss, ValidationAccuracy } = metricsOf(progress);
  return join(
    epoch === undefined ? stage : `${stage}, epoch ${epoch} of ${epochs}`,
    TrainLoss && `loss ${TrainLoss}`,
    ValidationAccuracy && `accuracy ${ValidationAccuracy}`,
    samplesPerSecond && `${count(Math.round(Number(samplesPerSecond)))} pictures/s`,
    etaSeconds === undefined ? '' : `${duration(etaSeconds)} left`,
  );
}

function metricsOf(progress: TrainingJobStatus['progress']): Record<string, string | undefined> {
  return Object.fromEntries((progress?.metrics ?? []).map(({ name, value }) => [name, round(value)]));
}

const join = (...parts: (string | undefined)[]) => parts.filter(Boolean).join(', ');
const round = (decimal: string) => Number(decimal).toFixed(3);
export const count = (n: number) => n.toLocaleString('en');

export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  return whole < 90 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
