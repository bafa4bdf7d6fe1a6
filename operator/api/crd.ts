/**
 * From a kind's zod schemas to its CustomResourceDefinition: a structural OpenAPI v3 schema with every string, list and map
 * bounded (CEL's cost is estimated from the bounds), unions and rules as CEL, and defaults told in words only, because a schema
 * default is applied on every read and would change every stored spec with an upgrade.
 */
import { z } from 'zod';
import { DatasetSpec, DatasetStatus } from './dataset.ts';
import { InferenceServiceSpec, InferenceServiceStatus } from './inferenceservice.ts';
import { ModelExportSpec, ModelExportStatus } from './modelexport.ts';
import { GROUP, VERSION } from './object.ts';
import { TrainingJobSpec, TrainingJobStatus } from './trainingjob.ts';

interface Column {
  name: string;
  type: 'string' | 'integer' | 'date';
  jsonPath: string;
  description?: string;
  /** 0 is shown always, 1 with `-o wide`. */
  priority?: number;
}

export interface Kind {
  kind: string;
  plural: string;
  shortName: string;
  /** A sentence for `kubectl explain` and the head of the reference page. */
  description: string;
  spec: z.ZodType;
  status: z.ZodType;
  columns: Column[];
  selectableFields: string[];
  scale?: { specReplicasPath: string; statusReplicasPath: string; labelSelectorPath: string };
}

const condition = (type: string) => `.status.conditions[?(@.type=="${type}")].status`;
const READY: Column = { name: 'Ready', type: 'string', jsonPath: condition('Ready') };
const REASON: Column = {
  name: 'Reason',
  type: 'string',
  jsonPath: '.status.conditions[?(@.type=="Ready")].reason',
  description: 'Why it is or is not ready.',
};
const AGE: Column = { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' };
const metric = (name: string) => `.status.progress.metrics[?(@.name=="${name}")].value`;

export const KINDS: readonly Kind[] = [
  {
    kind: 'Dataset',
    plural: 'datasets',
    shortName: 'fds',
    description:
      'A Dataset validates a folder of pictures, splits it and packs it, so that TrainingJobs can learn from it.',
    spec: DatasetSpec,
    status: DatasetStatus,
    columns: [
      READY,
      REASON,
      { name: 'Samples', type: 'integer', jsonPath: '.status.samples' },
      { name: 'Classes', type: 'integer', jsonPath: '.status.classCount' },
      { name: 'Quarantined', type: 'integer', jsonPath: '.status.quarantined.count' },
      { name: 'Progress', type: 'integer', jsonPath: '.status.progress.percent', priority: 1 },
      { name: 'Digest', type: 'string', jsonPath: '.status.artifact.digest', priority: 1 },
      AGE,
    ],
    selectableFields: ['.spec.source.type'],
  },
  {
    kind: 'TrainingJob',
    plural: 'trainingjobs',
    shortName: 'ftj',
    description: 'A TrainingJob trains a network on a Dataset in pods, and keeps its best model.',
    spec: TrainingJobSpec,
    status: TrainingJobStatus,
    columns: [
      READY,
      REASON,
      { name: 'Progress', type: 'integer', jsonPath: '.status.progress.percent' },
      { name: 'Epoch', type: 'integer', jsonPath: '.status.progress.epoch' },
      { name: 'Loss', type: 'string', jsonPath: metric('TrainLoss') },
      { name: 'Accuracy', type: 'string', jsonPath: metric('ValidationAccuracy') },
      AGE,
    ],
    selectableFields: ['.spec.datasetRef.name'],
  },
  {
    kind: 'ModelExport',
    plural: 'modelexports',
    shortName: 'fme',
    description:
      'A ModelExport makes an ONNX model of a trained one and verifies it on pictures that were not trained on.',
    spec: ModelExportSpec,
    status: ModelExportStatus,
    columns: [
      { name: 'Verified', type: 'string', jsonPath: condition('Verified') },
      REASON,
      { name: 'Accuracy', type: 'string', jsonPath: '.status.verification.accuracy' },
      { name: 'Drop', type: 'string', jsonPath: '.status.verification.dropPoints' },
      { name: 'Size', type: 'integer', jsonPath: '.status.verification.sizeBytes' },
      AGE,
    ],
    selectableFields: ['.spec.source.trainingJob.name'],
  },
  {
    kind: 'InferenceService',
    plural: 'inferenceservices',
    shortName: 'fis',
    description: 'An InferenceService serves a verified model and answers pictures with labels.',
    spec: InferenceServiceSpec,
    status: InferenceServiceStatus,
    columns: [
      READY,
      { name: 'Available', type: 'string', jsonPath: condition('Available') },
      REASON,
      { name: 'Replicas', type: 'integer', jsonPath: '.status.replicas' },
      { name: 'Model', type: 'string', jsonPath: '.status.modelDigest', priority: 1 },
      { name: 'URL', type: 'string', jsonPath: '.status.url' },
      AGE,
    ],
    selectableFields: ['.spec.model.export.name'],
    scale: {
      specReplicasPath: '.spec.replicas',
      statusReplicasPath: '.status.replicas',
      labelSelectorPath: '.status.selector',
    },
  },
];

/** A node of OpenAPI v3 as the API server takes it. */
export interface Schema {
  type?: string;
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: Schema;
  enum?: unknown[];
  [key: string]: unknown;
}

type JsonSchema = Schema & {
  default?: unknown;
  anyOf?: JsonSchema[];
  union?: Record<string, string | null>;
  unionRequired?: boolean;
  rules?: { rule: string; message: string; fieldPath?: string; reason?: string }[];
  listMapKeys?: string[];
  maxProperties?: number;
  quantity?: boolean;
  schemaDefault?: unknown;
};

/** JSON Schema of a zod type, as users write it: what has a default may be left out. */
export function jsonSchema(type: z.ZodType): JsonSchema {
  return z.toJSONSchema(type, { io: 'input', target: 'openapi-3.0', reused: 'inline' }) as JsonSchema;
}

const KEPT = [
  'type',
  'format',
  'enum',
  'minimum',
  'maximum',
  'minLength',
  'maxLength',
  'pattern',
  'minItems',
  'maxItems',
];
const SAFE_INTEGER = Number.MAX_SAFE_INTEGER;

/** JSON as a person reads it in a sentence. */
export const inWords = (value: unknown) =>
  typeof value === 'string' ? `\`${value}\`` : `\`${JSON.stringify(value)}\``;

/**
 * One node and all below it.
 *
 * @throws Error with the path of a node that is unbounded or has no place in a structural schema
 */
export function openApi(source: JsonSchema, path: string): Schema {
  if (source.quantity) {
    return { 'x-kubernetes-int-or-string': true, ...described(source) };
  }
  if (source.anyOf) {
    const types = source.anyOf.map((member) => member.type).sort();
    if (String(types) !== 'integer,string') throw new Error(`${path}: only integer or string can be a choice of types`);
    const pattern = source.anyOf.find((member) => member.type === 'string')?.pattern as string | undefined;
    return {
      'x-kubernetes-int-or-string': true,
      ...described(source),
      ...(pattern && {
        'x-kubernetes-validations': [
          {
            rule: `type(self) == int ? self >= 0 : self.matches(${JSON.stringify(pattern)})`,
            message: `must be a count or match ${pattern}`,
          },
        ],
      }),
    };
  }
  const node: Schema = {};
  for (const key of KEPT) if (source[key] !== undefined) node[key] = source[key];
  Object.assign(node, described(source));
  // zod states the bounds of safe integers, which say nothing.
  if (node.minimum === -SAFE_INTEGER) delete node.minimum;
  if (node.maximum === SAFE_INTEGER) delete node.maximum;
  if (node.type === 'integer') node.format = 'int64';
  if (source.exclusiveMinimum !== undefined) exclusive(node, source, 'Minimum');
  if (source.exclusiveMaximum !== undefined) exclusive(node, source, 'Maximum');
  if (source.schemaDefault !== undefined) node.default = source.schemaDefault;
  const rules = [...(source.rules ?? [])];

  switch (source.type) {
    case 'object':
      if (source.properties) {
        node.properties = {};
        for (const [name, property] of Object.entries(source.properties)) {
          node.properties[name] = openApi(property as JsonSchema, `${path}.${name}`);
        }
        const required = (source.required ?? []).filter(
          (name) => (source.properties![name] as JsonSchema).default === undefined,
        );
        if (required.length > 0) node.required = required;
        rules.unshift(...unionRules(source));
      } else {
        if (!source.maxProperties) throw new Error(`${path}: a map needs maxProperties`);
        node.maxProperties = source.maxProperties;
        node.additionalProperties = openApi(source.additionalProperties as JsonSchema, `${path}.*`);
      }
      break;
    case 'array':
      if (source.maxItems === undefined) throw new Error(`${path}: a list needs a maximum length`);
      node.items = openApi(source.items as JsonSchema, `${path}[]`);
      node['x-kubernetes-list-type'] = source.listMapKeys ? 'map' : 'atomic';
      if (source.listMapKeys) node['x-kubernetes-list-map-keys'] = source.listMapKeys;
      break;
    case 'string':
      if (!source.enum && source.maxLength === undefined && !/^\^[^+*]*\$$/.test(String(source.pattern ?? '+'))) {
        throw new Error(`${path}: a string needs a maximum length`);
      }
      break;
    case 'integer':
    case 'number':
    case 'boolean':
      break;
    default:
      throw new Error(`${path}: type ${source.type} has no place in a structural schema`);
  }
  if (rules.length > 0) node['x-kubernetes-validations'] = rules;
  return node;
}

function exclusive(node: Schema, source: JsonSchema, bound: 'Minimum' | 'Maximum'): void {
  // OpenAPI 3.0: a flag beside the bound; later JSON Schema: the bound itself.
  const value = source[`exclusive${bound}`];
  const key = bound.toLowerCase();
  if (typeof value === 'number') node[key] = value;
  node[`exclusive${bound}`] = true;
}

function described(source: JsonSchema): { description?: string } {
  const known = source.default !== undefined && JSON.stringify(source.default) !== '{}' && source.default !== undefined;
  const words = [source.description, known ? `Default: ${inWords(source.default)}.` : undefined].filter(Boolean);
  return words.length > 0 ? { description: words.join(' ') } : {};
}

/** The member that `type` does not name is refused; the one it names must be there if nothing can stand for it. */
function unionRules(source: JsonSchema) {
  if (!source.union) return [];
  const usual = (source.properties!.type as JsonSchema).default;
  const type = usual === undefined ? 'self.type' : `(has(self.type) ? self.type : '${usual}')`;
  return Object.entries(source.union).flatMap(([value, member]) => {
    if (member === null) return [];
    const rules = [
      {
        rule: `!has(self.${member}) || ${type} == '${value}'`,
        message: `${member} is only for type ${value}`,
        fieldPath: `.${member}`,
      },
    ];
    if (source.unionRequired) {
      rules.push({
        rule: `${type} != '${value}' || has(self.${member})`,
        message: `type ${value} needs ${member}`,
        fieldPath: '.type',
      });
    }
    return rules;
  });
}

/** The whole CustomResourceDefinition (apiextensions.k8s.io/v1). */
export function customResourceDefinition(kind: Kind) {
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${kind.plural}.${GROUP}` },
    spec: {
      group: GROUP,
      scope: 'Namespaced',
      names: {
        kind: kind.kind,
        listKind: `${kind.kind}List`,
        plural: kind.plural,
        singular: kind.kind.toLowerCase(),
        shortNames: [kind.shortName],
        categories: ['fovea'],
      },
      versions: [
        {
          name: VERSION,
          served: true,
          storage: true,
          schema: {
            openAPIV3Schema: {
              type: 'object',
              description: kind.description,
              required: ['spec'],
              properties: {
                apiVersion: { type: 'string' },
                kind: { type: 'string' },
                metadata: { type: 'object' },
                spec: openApi(jsonSchema(kind.spec), `${kind.kind}.spec`),
                status: openApi(jsonSchema(kind.status), `${kind.kind}.status`),
              },
              // The pods of a Job are named <name>-<letter><8 digits>-<attempt>-<index>: a DNS label of at most 63.
              'x-kubernetes-validations': [
                {
                  rule: 'size(self.metadata.name) <= 40',
                  message: 'metadata.name must have at most 40 characters, so that the names of its pods fit',
                },
              ],
            },
          },
          subresources: { status: {}, ...(kind.scale && { scale: kind.scale }) },
          additionalPrinterColumns: kind.columns,
          selectableFields: kind.selectableFields.map((jsonPath) => ({ jsonPath })),
        },
      ],
    },
  };
}
