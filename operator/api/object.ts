/** What all custom resources share as objects. */
export const GROUP = 'fovea.dev';
export const VERSION = 'v1alpha1';

/** A custom resource as the API server returns it. */
export interface FoveaObject<Spec, Status> {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace: string;
    uid: string;
    generation: number;
    resourceVersion?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    creationTimestamp?: string;
    deletionTimestamp?: string;
  };
  spec: Spec;
  status?: Status;
}

/** The four kinds as REST resources. */
export const RESOURCES = {
  datasets: { group: GROUP, version: VERSION, plural: 'datasets', kind: 'Dataset', namespaced: true },
  trainingJobs: { group: GROUP, version: VERSION, plural: 'trainingjobs', kind: 'TrainingJob', namespaced: true },
  modelExports: { group: GROUP, version: VERSION, plural: 'modelexports', kind: 'ModelExport', namespaced: true },
  inferenceServices: {
    group: GROUP,
    version: VERSION,
    plural: 'inferenceservices',
    kind: 'InferenceService',
    namespaced: true,
  },
} as const;
