/** The four kinds as the API server and the reference pages present them: names, columns, selectable fields, conditions. */
import type { z } from 'zod';
import { CONDITIONS, type ConditionMeaning } from './conditions.ts';
import { DatasetSpec, DatasetStatus } from './dataset.ts';
import { InferenceServiceSpec, InferenceServiceStatus } from './inferenceservice.ts';
import { ModelExportSpec, ModelExportStatus } from './modelexport.ts';
import { TrainingJobSpec, TrainingJobStatus } from './trainingjob.ts';

/** A column of `kubectl get`. */
interface Column {
  name: string;
  type: 'string' | 'integer' | 'date';
  jsonPath: string;
  description: string;
  /** 0 is shown always, 1 with `-o wide`. */
  priority?: number;
}

export interface Kind {
  kind: 'Dataset' | 'TrainingJob' | 'ModelExport' | 'InferenceService';
  plural: string;
  shortName: string;
  /** A sentence for `kubectl explain` and the head of the reference page. */
  description: string;
  spec: z.ZodType;
  status: z.ZodType;
  columns: Column[];
  /** What a list can be selected by (`--field-selector`): the references, so that one can ask who uses an object. */
  selectableFields: string[];
  conditions: ConditionMeaning[];
  scale?: { specReplicasPath: string; statusReplicasPath: string; labelSelectorPath: string };
}

const condition = (type: string) => `.status.conditions[?(@.type=="${type}")].status`;
const metric = (name: string) => `.status.progress.metrics[?(@.name=="${name}")].value`;

const REASON: Column = {
  name: 'Reason',
  type: 'string',
  jsonPath: '.status.conditions[?(@.type=="Ready")].reason',
  description: 'Reason of the condition Ready.',
};
const AGE: Column = {
  name: 'Age',
  type: 'date',
  jsonPath: '.metadata.creationTimestamp',
  description: 'Time since it was created.',
};
const percent = (priority: number): Column => ({
  name: 'Progress',
  type: 'integer',
  jsonPath: '.status.progress.percent',
  description: 'Share of the present run that is done, in percent.',
  priority,
});
const digest = (jsonPath: string): Column => ({
  name: 'Digest',
  type: 'string',
  jsonPath,
  description: 'Digest of the result.',
  priority: 1,
});

export const KINDS: readonly Kind[] = [
  {
    kind: 'Dataset',
    plural: 'datasets',
    shortName: 'fds',
    description:
      'A Dataset takes pictures from a claim or a URL, sets aside what is unusable, splits them into train, validation and test, and packs them into the store. TrainingJobs learn from it and ModelExports are verified on it.',
    spec: DatasetSpec,
    status: DatasetStatus,
    columns: [
      { name: 'Ready', type: 'string', jsonPath: condition('Ready'), description: 'The pictures are packed.' },
      REASON,
      { name: 'Samples', type: 'integer', jsonPath: '.status.samples', description: 'Pictures packed.' },
      { name: 'Classes', type: 'integer', jsonPath: '.status.classCount', description: 'Number of classes.' },
      {
        name: 'Quarantined',
        type: 'integer',
        jsonPath: '.status.quarantined.count',
        description: 'Files set aside because they are unusable.',
      },
      percent(1),
      digest('.status.artifact.digest'),
      AGE,
    ],
    selectableFields: ['.spec.source.type', '.spec.source.pvc.claimName'],
    conditions: [CONDITIONS.Ready('The pictures of this spec are packed.'), ...CONDITIONS.progress],
  },
  {
    kind: 'TrainingJob',
    plural: 'trainingjobs',
    shortName: 'ftj',
    description:
      'A TrainingJob trains a network on a Dataset in the pods of a Kubernetes Job, saves checkpoints from which it resumes, and keeps the best model in the store.',
    spec: TrainingJobSpec,
    status: TrainingJobStatus,
    columns: [
      { name: 'Ready', type: 'string', jsonPath: condition('Ready'), description: 'The model of this spec exists.' },
      REASON,
      percent(0),
      { name: 'Epoch', type: 'integer', jsonPath: '.status.progress.epoch', description: 'Epoch that runs.' },
      { name: 'Loss', type: 'string', jsonPath: metric('TrainLoss'), description: 'Latest training loss.' },
      {
        name: 'Accuracy',
        type: 'string',
        jsonPath: metric('ValidationAccuracy'),
        description: 'Latest accuracy on the validation split, between 0 and 1.',
      },
      { name: 'Workers', type: 'integer', jsonPath: '.status.workers.ready', description: 'Workers that run.' },
      {
        name: 'Lost',
        type: 'integer',
        jsonPath: '.status.workers.lost',
        description: 'Workers lost by this run.',
        priority: 1,
      },
      digest('.status.artifact.digest'),
      AGE,
    ],
    selectableFields: ['.spec.datasetRef.name'],
    conditions: [
      CONDITIONS.Ready('The model of this spec exists.'),
      ...CONDITIONS.progress,
      CONDITIONS.Running('All workers run.'),
      CONDITIONS.Complete('The model of this spec exists.'),
      CONDITIONS.Failed('Training ended without a model, and is not tried again by itself.'),
    ],
  },
  {
    kind: 'ModelExport',
    plural: 'modelexports',
    shortName: 'fme',
    description:
      'A ModelExport turns a trained model into ONNX and verifies it on pictures that were not trained on: its logits and its accuracy against the model it came from. Only a verified one can be served.',
    spec: ModelExportSpec,
    status: ModelExportStatus,
    columns: [
      {
        name: 'Verified',
        type: 'string',
        jsonPath: condition('Verified'),
        description: 'The export holds its limits.',
      },
      REASON,
      {
        name: 'Accuracy',
        type: 'string',
        jsonPath: '.status.verification.accuracy',
        description: 'Accuracy of the export on the held-out split, between 0 and 1.',
      },
      {
        name: 'Drop',
        type: 'string',
        jsonPath: '.status.verification.dropPoints',
        description: 'Accuracy lost against the source, in percentage points.',
      },
      {
        name: 'Size',
        type: 'integer',
        jsonPath: '.status.verification.sizeBytes',
        description: 'Size of the model in bytes.',
      },
      percent(1),
      digest('.status.artifact.digest'),
      AGE,
    ],
    selectableFields: ['.spec.source.trainingJob.name', '.spec.verify.datasetRef.name'],
    conditions: [
      CONDITIONS.Ready('The export of this spec is verified.'),
      ...CONDITIONS.progress,
      CONDITIONS.Complete('The export of this spec is verified.'),
      CONDITIONS.Failed('The export could not be made, or did not hold its limits.'),
      CONDITIONS.Verified('The export of this spec holds its limits.'),
    ],
  },
  {
    kind: 'InferenceService',
    plural: 'inferenceservices',
    shortName: 'fis',
    description:
      'An InferenceService serves the model of a ModelExport: it answers pictures with labels, at the gateway and in each pod. A new model takes over when all its replicas are ready.',
    spec: InferenceServiceSpec,
    status: InferenceServiceStatus,
    columns: [
      {
        name: 'Ready',
        type: 'string',
        jsonPath: condition('Ready'),
        description: 'The revision of this spec has all traffic.',
      },
      {
        name: 'Available',
        type: 'string',
        jsonPath: condition('Available'),
        description: 'Requests are answered, if only by an earlier revision.',
      },
      REASON,
      { name: 'Replicas', type: 'integer', jsonPath: '.status.replicas', description: 'Predictor pods.' },
      {
        name: 'Model',
        type: 'string',
        jsonPath: '.status.modelDigest',
        description: 'Digest of the model that serves.',
        priority: 1,
      },
      { name: 'URL', type: 'string', jsonPath: '.status.url', description: 'Base URL at the gateway.' },
      AGE,
    ],
    selectableFields: ['.spec.model.export.name'],
    conditions: [
      CONDITIONS.Ready('The revision of this spec has all traffic and all its replicas are ready.'),
      ...CONDITIONS.progress,
      CONDITIONS.Available('Requests are answered, if only by an earlier revision.'),
    ],
    scale: {
      specReplicasPath: '.spec.replicas',
      statusReplicasPath: '.status.replicas',
      labelSelectorPath: '.status.selector',
    },
  },
];
