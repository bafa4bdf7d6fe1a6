/** Where a kind's spec says what its pods are, for messages that name a field. */
import type { Component } from '../manifests/labels.ts';

export interface FieldPaths {
  /** Requests and limits. */
  resources: string;
  /** Placement, identity and the like. */
  pod: string;
  /** Where the image comes from. */
  image: string;
}

const OPERATORS_IMAGE = "the operator's FOVEA_TRAINER_IMAGE";

export const FIELD_PATHS: Record<Component, FieldPaths> = {
  dataset: { resources: 'spec.resources', pod: 'spec.pod', image: OPERATORS_IMAGE },
  trainingjob: { resources: 'spec.workers.resources', pod: 'spec.workers.pod', image: OPERATORS_IMAGE },
  modelexport: { resources: 'spec.resources', pod: 'spec.pod', image: OPERATORS_IMAGE },
  inferenceservice: { resources: 'spec.runtime.resources', pod: 'spec.runtime.pod', image: 'spec.runtime.image' },
};
