/** The Job that carries out one run of a Dataset, TrainingJob or ModelExport. */
import type { V1Job, V1OwnerReference, V1PodTemplateSpec } from '@kubernetes/client-node';
import { EXIT } from '../../trainer-image/contract.ts';
import {
  type Component,
  childLabels,
  DIGEST_ANNOTATION,
  GENERATION_ANNOTATION,
  LOST_ANNOTATION,
  QUEUE_LABEL,
  RESOLVED_ANNOTATION,
} from './labels.ts';
import { CONTAINER } from './pod.ts';

export interface RunJob {
  component: Component;
  name: string;
  namespace: string;
  /** Name of the object it works for. */
  owner: string;
  ownerReference: V1OwnerReference;
  inputDigest: string;
  /** Frozen with the run; read back from the Job, see `RESOLVED_ANNOTATION`. */
  resolved: unknown;
  /** Of the object's spec. */
  generation: number;
  /** Kueue's queue; copied from the object's label. */
  queue?: string;
  template: V1PodTemplateSpec;
  workers: JobWorkers;
}

export interface JobWorkers {
  /** Pods that work at once, one an index. */
  replicas: number;
  /** Workers that the run lost in earlier attempts. */
  lostBefore: number;
  /** Lost pods are replaced this often before the Job counts as failed; disruptions and INTERRUPTED do not count. */
  backoffLimit: number;
  /** A finished Job is kept so long, so that its pods' logs can be read. */
  ttlSeconds: number;
}

export function runJob(run: RunJob): V1Job {
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: {
      name: run.name,
      namespace: run.namespace,
      labels: { ...childLabels(run.component, run.owner), ...(run.queue ? { [QUEUE_LABEL]: run.queue } : {}) },
      annotations: {
        [DIGEST_ANNOTATION]: run.inputDigest,
        [RESOLVED_ANNOTATION]: JSON.stringify(run.resolved),
        [GENERATION_ANNOTATION]: String(run.generation),
        [LOST_ANNOTATION]: String(run.workers.lostBefore),
      },
      ownerReferences: [run.ownerReference],
    },
    spec: {
      completionMode: 'Indexed',
      completions: run.workers.replicas,
      parallelism: run.workers.replicas,
      backoffLimit: run.workers.backoffLimit,
      // Never two pods of one index: both would write the same run.
      podReplacementPolicy: 'Failed',
      ttlSecondsAfterFinished: run.workers.ttlSeconds,
      podFailurePolicy: {
        rules: [
          {
            action: 'FailJob',
            onExitCodes: { containerName: CONTAINER, operator: 'In', values: [EXIT.USER_ERROR, EXIT.NO_ACCELERATOR] },
          },
          { action: 'Ignore', onPodConditions: [{ type: 'DisruptionTarget', status: 'True' }] },
          { action: 'Ignore', onExitCodes: { containerName: CONTAINER, operator: 'In', values: [EXIT.INTERRUPTED] } },
        ],
      },
      template: run.template,
    },
  };
}
