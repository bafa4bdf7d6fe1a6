/** The Job that carries out one run of a Dataset, TrainingJob or ModelExport. */
import type { V1Job, V1OwnerReference, V1PodTemplateSpec } from '@kubernetes/client-node';
import { EXIT } from '../../trainer-image/contract.ts';
import { type Component, childLabels, DIGEST_ANNOTATION, QUEUE_LABEL, RESOLVED_ANNOTATION } from './labels.ts';
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
  /** Kueue's queue; copied from the object's label. */
  queue?: string;
  template: V1PodTemplateSpec;
}

/** Lost pods are replaced this often before the Job counts as failed; disruptions and INTERRUPTED do not count. */
const BACKOFF_LIMIT = 10;
/** A finished Job is kept for a day, so that its pod's log can be read. */
const TTL_SECONDS = 86_400;

export function runJob(run: RunJob): V1Job {
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: {
      name: run.name,
      namespace: run.namespace,
      labels: { ...childLabels(run.component, run.owner), ...(run.queue ? { [QUEUE_LABEL]: run.queue } : {}) },
      annotations: { [DIGEST_ANNOTATION]: run.inputDigest, [RESOLVED_ANNOTATION]: JSON.stringify(run.resolved) },
      ownerReferences: [run.ownerReference],
    },
    spec: {
      completionMode: 'Indexed',
      completions: 1,
      parallelism: 1,
      backoffLimit: BACKOFF_LIMIT,
      // Never two pods of one index: both would write the same run.
      podReplacementPolicy: 'Failed',
      ttlSecondsAfterFinished: TTL_SECONDS,
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
