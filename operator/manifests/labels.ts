/** Names by which children are found again: labels and annotations on everything Fovea creates. */

/** The kinds that own children, by the word in labels and in children's names. */
export const COMPONENTS = {
  dataset: { kind: 'Dataset', letter: 'd', ownerLabel: 'fovea.dev/dataset' },
  trainingjob: { kind: 'TrainingJob', letter: 't', ownerLabel: 'fovea.dev/trainingjob' },
  modelexport: { kind: 'ModelExport', letter: 'e', ownerLabel: 'fovea.dev/modelexport' },
  inferenceservice: { kind: 'InferenceService', letter: 's', ownerLabel: 'fovea.dev/service' },
} as const;
export type Component = keyof typeof COMPONENTS;

export const MANAGED_BY = 'app.kubernetes.io/managed-by';
export const MANAGER = 'fovea';
export const REVISION_LABEL = 'fovea.dev/revision';
export const STORE_LABEL = 'fovea.dev/store';
export const QUEUE_LABEL = 'kueue.x-k8s.io/queue-name';

/** Selects the gateway's pods. */
export const GATEWAY_SELECTOR = 'app.kubernetes.io/name=fovea-gateway';

/** Full input digest of the run or revision a child was made for: names hold only its first 8 digits. */
export const DIGEST_ANNOTATION = 'fovea.dev/input-digest';
/** What was resolved when the run started, as JSON: a run is frozen by the child that carries it out. */
export const RESOLVED_ANNOTATION = 'fovea.dev/resolved';
/** On a Job: generation of the spec that it was made for. */
export const GENERATION_ANNOTATION = 'fovea.dev/generation';
/** On a Job: workers that its run lost in earlier attempts. */
export const LOST_ANNOTATION = 'fovea.dev/workers-lost-before';
/** The Job controller's own: the index of a pod in its Job. */
export const INDEX_ANNOTATION = 'batch.kubernetes.io/job-completion-index';
/** PEM of the intake's certificate authority; the pod reads it through the downward API. */
export const INTAKE_CA_ANNOTATION = 'fovea.dev/intake-ca';
/** Set by people to run once more with an unchanged spec. Its value enters the input digest. */
export const REQUESTED_AT_ANNOTATION = 'fovea.dev/requested-at';

/** Labels of a child of `name`, and of its pods. */
export function childLabels(component: Component, name: string): Record<string, string> {
  return {
    [MANAGED_BY]: MANAGER,
    'app.kubernetes.io/component': component,
    [COMPONENTS[component].ownerLabel]: name,
  };
}

/**
 * Name of a child: `<name>-<kind letter><first 8 digits of the digest>[-<attempt>]`. With names of at most 40 characters
 * (the CRD refuses longer ones) a Job's pod host name `<job>-<index>` fits a DNS label of 63.
 */
export function childName(component: Component, name: string, digest: string, attempt?: number): string {
  const base = `${name}-${COMPONENTS[component].letter}${digest.replace('sha256:', '').slice(0, 8)}`;
  return attempt === undefined ? base : `${base}-${attempt}`;
}
