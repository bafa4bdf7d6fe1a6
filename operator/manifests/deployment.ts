/** The Deployment of one revision of an InferenceService. */
import type { V1Deployment, V1OwnerReference, V1PodTemplateSpec } from '@kubernetes/client-node';
import { COMPONENTS, childLabels, DIGEST_ANNOTATION, RESOLVED_ANNOTATION, REVISION_LABEL } from './labels.ts';

export interface RevisionDeployment {
  name: string;
  namespace: string;
  /** Name of the InferenceService. */
  owner: string;
  ownerReference: V1OwnerReference;
  digest: string;
  resolved: unknown;
  replicas: number;
  template: V1PodTemplateSpec;
}

export function revisionDeployment(revision: RevisionDeployment): V1Deployment {
  const labels = { ...childLabels('inferenceservice', revision.owner), [REVISION_LABEL]: revision.name };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: {
      name: revision.name,
      namespace: revision.namespace,
      labels,
      annotations: {
        [DIGEST_ANNOTATION]: revision.digest,
        [RESOLVED_ANNOTATION]: JSON.stringify(revision.resolved),
      },
      ownerReferences: [revision.ownerReference],
    },
    spec: {
      replicas: revision.replicas,
      revisionHistoryLimit: 0,
      selector: {
        matchLabels: { [COMPONENTS.inferenceservice.ownerLabel]: revision.owner, [REVISION_LABEL]: revision.name },
      },
      // A pod lost in a rollout of the Deployment itself (a node drain, an edit) is replaced before it goes.
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
      template: revision.template,
    },
  };
}
