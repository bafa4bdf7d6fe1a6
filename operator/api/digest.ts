/** The input digest: what a run's numbers, or a revision's pods, depend on, and nothing else. */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';

/**
 * Fields of the spec that change no result, by path: placement, resources, retention, when to run. All others enter as the
 * user wrote them: no default is filled in, so a later version with another default, or a new field with one, changes no
 * digest. A new field enters unless it is named here.
 */
export const LEFT_OUT = {
  dataset: ['suspend', 'resources', 'store', 'pod'],
  trainingjob: ['suspend', 'rerun', 'workers', 'policy', 'checkpoints', 'store'],
  modelexport: ['suspend', 'rerun', 'resources', 'store', 'pod'],
  // A revision is its pods, so what they are given enters. The model enters by its digest: a reference to the same bytes under
  // another name is the same revision. Timeouts are the gateway's business.
  inferenceservice: ['suspend', 'replicas', 'scaling', 'rollout', 'model', 'request.timeoutSeconds'],
} as const satisfies Record<string, readonly string[]>;

/**
 * `sha256:<hex>` of the RFC 8785 canonical JSON of the spec's fields that count, the digests of what is consumed, and the
 * time a rerun was asked for by hand. Canonical JSON: 1e-3 and 0.001 agree, and so does any order of keys.
 *
 * References count as written: one that names another object is a changed spec, and what it names is compared by `inputs`.
 */
export function inputDigest(
  component: keyof typeof LEFT_OUT,
  spec: object,
  inputs: readonly { kind: string; digest: string }[],
  requestedAt?: string,
): string {
  const counted = without(spec, LEFT_OUT[component]);
  const document = canonicalize({ component, spec: counted, inputs, requestedAt });
  return `sha256:${createHash('sha256').update(document!).digest('hex')}`;
}

/** A copy without the fields of these paths; an object that is empty only for that goes too. */
function without(value: object, paths: readonly string[]): object {
  const kept = Object.entries(value).flatMap(([name, inner]): [string, unknown][] => {
    if (paths.includes(name)) return [];
    const below = paths.filter((path) => path.startsWith(`${name}.`)).map((path) => path.slice(name.length + 1));
    if (below.length === 0 || typeof inner !== 'object' || inner === null) return [[name, inner]];
    const rest = without(inner, below);
    return Object.keys(rest).length === 0 ? [] : [[name, rest]];
  });
  return Object.fromEntries(kept);
}
