/** The input digest: what a run's numbers depend on, and nothing else. */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';

/**
 * Fields of the spec that change no number: placement, resources, retention, when to run. What stays enters the digest as
 * the user wrote it: a default is not filled in, so a new default or a new field of a later version changes no digest.
 */
const LEFT_OUT = {
  dataset: ['suspend', 'resources', 'store', 'pod'],
  trainingjob: ['suspend', 'rerun', 'workers', 'checkpoints', 'store', 'datasetRef'],
  modelexport: ['suspend', 'rerun', 'source', 'resources', 'store', 'pod'],
  inferenceservice: ['suspend', 'replicas', 'model', 'rollout', 'store'],
} as const;

/**
 * `sha256:<hex>` of the RFC 8785 canonical JSON of the spec's fields that count, the digests of what is consumed (in the
 * place of the references to it), and the time a rerun was requested by hand.
 */
export function inputDigest(
  component: keyof typeof LEFT_OUT,
  spec: object,
  inputs: readonly { kind: string; digest: string }[],
  requestedAt?: string,
): string {
  const out: readonly string[] = LEFT_OUT[component];
  const counted = Object.fromEntries(Object.entries(spec).filter(([field]) => !out.includes(field)));
  if (component === 'modelexport' && counted.verify) counted.verify = { ...counted.verify, datasetRef: undefined };
  // The gateway's business; the predictor is not touched by it.
  if (component === 'inferenceservice' && counted.request) {
    counted.request = { ...counted.request, timeoutSeconds: undefined };
  }
  const document = canonicalize({ component, spec: counted, inputs, requestedAt });
  return `sha256:${createHash('sha256').update(document!).digest('hex')}`;
}
