import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { customResourceDefinition, type Schema } from '../../operator/api/crd.ts';
import { KINDS, type Kind } from '../../operator/api/kinds.ts';
import { RESOURCES } from '../../operator/api/object.ts';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { ApiError } from '../../operator/kube/errors.ts';
import type { KubeObject, Resource } from '../../operator/kube/resources.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { installKinds } from './kinds.ts';

const it = suite('values that the API server takes and refuses');

let plane: ControlPlane;
let client: Client;

it.before(async () => {
  plane = await startControlPlane();
  client = await connect(loadConfig(plane.kubeconfig));
  await installKinds(client);
});
it.after(async () => {
  await client?.close();
  await plane?.stop();
});

const DIGEST = `sha256:${'a'.repeat(64)}`;
/** The least that a user has to write. */
const LEAST = {
  Dataset: { source: { type: 'HTTP', http: { url: 'http://127.0.0.1/a.tar', digest: DIGEST } } },
  TrainingJob: {
    datasetRef: { name: 'd' },
    trainer: { type: 'BuiltIn', builtIn: { model: { name: 'ResNet20' } } },
  },
  ModelExport: { source: { type: 'TrainingJob', trainingJob: { name: 't' } } },
  InferenceService: { model: { type: 'Export', export: { name: 'e' } } },
} as const;
type KindName = Kind['kind'];

const RESOURCE_OF: Record<string, Resource> = Object.fromEntries(Object.values(RESOURCES).map((of) => [of.kind, of]));

interface Custom extends KubeObject {
  spec?: unknown;
  status?: unknown;
}

let count = 0;
function objectOf(kind: KindName, spec: unknown, name = `o${count++}`): Custom {
  return { apiVersion: 'fovea.dev/v1alpha1', kind, metadata: { name, namespace: 'default' }, spec };
}

/** The server's words; undefined if it took the object. */
async function refusal(kind: KindName, spec: unknown, name?: string): Promise<string | undefined> {
  try {
    await client.create(RESOURCE_OF[kind], objectOf(kind, spec, name));
    return undefined;
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 422) throw error;
    return error.message;
  }
}

it('the least that a user has to write is taken, and nothing is added to it', async () => {
  for (const [kind, spec] of Object.entries(LEAST)) {
    const created = await client.create(RESOURCE_OF[kind], objectOf(kind as KindName, spec));
    // The scale subresource needs spec.replicas; it is in no input digest.
    assert.equal(created.spec, kind === 'InferenceService' ? { ...spec, replicas: 1 } : spec);
  }
});

it('what goes against a rule is refused with the path of its field', async () => {
  const { http } = LEAST.Dataset.source;
  const recipe = (of: object) => ({
    ...LEAST.TrainingJob,
    trainer: { type: 'BuiltIn', builtIn: { model: { name: 'ResNet20' }, recipe: of } },
  });
  const pod = (of: object) => ({ ...LEAST.Dataset, pod: of });
  const table: [KindName, object, string][] = [
    ['Dataset', { source: { type: 'HTTP' } }, 'spec.source.http: Required value: needed with type HTTP'],
    ['Dataset', { source: { type: 'PVC', http } }, 'spec.source.pvc: Required value: needed with type PVC'],
    [
      'Dataset',
      { source: { type: 'PVC', http, pvc: { claimName: 'a' } } },
      'spec.source.http: Forbidden: only with type HTTP',
    ],
    [
      'Dataset',
      { source: { type: 'PVC', pvc: { claimName: 'a', path: 'a/../../b' } } },
      `spec.source.pvc.path: Invalid value: "string": must not contain '..'`,
    ],
    [
      'Dataset',
      { ...LEAST.Dataset, split: { validationPercent: 90 } },
      'spec.split: Invalid value: "object": validationPercent + testPercent must be below 100',
    ],
    [
      'Dataset',
      { ...LEAST.Dataset, resources: { requests: { memory: '2Gi', cpu: 3 }, limits: { memory: '1.5Gi', cpu: '4' } } },
      'spec.resources.requests: Invalid value: "object": a request must not be above the limit',
    ],
    [
      'Dataset',
      { ...LEAST.Dataset, resources: { requests: { cpu: 3 }, limits: { cpu: '2500m' } } },
      'spec.resources.requests: Invalid value: "object": a request must not be above the limit',
    ],
    [
      'Dataset',
      pod({ labels: { 'a b': 'c' } }),
      'spec.pod.labels: Invalid value: "object": keys must be qualified names',
    ],
    [
      'Dataset',
      pod({ env: [{ name: 'A', value: 'a', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }] }),
      'spec.pod.env[0]: Invalid value: "object": value and valueFrom exclude each other',
    ],
    [
      'Dataset',
      pod({ env: [{ name: 'A', valueFrom: {} }] }),
      'spec.pod.env[0].valueFrom: Invalid value: "object": exactly one of',
    ],
    [
      'Dataset',
      pod({ env: [{ name: 'FOVEA_TASK', value: '{}' }] }),
      'spec.pod.env[0].name: Invalid value: "object": FOVEA_* and POD_IP are set by the operator',
    ],
    [
      'Dataset',
      pod({
        env: [
          { name: 'A', value: '1' },
          { name: 'A', value: '2' },
        ],
      }),
      'spec.pod.env[1]: Duplicate value',
    ],
    [
      'Dataset',
      pod({ tolerations: [{ operator: 'Equal' }] }),
      'spec.pod.tolerations[0]: Invalid value: "object": without key, operator must be Exists',
    ],
    [
      'TrainingJob',
      { ...LEAST.TrainingJob, workers: { replicas: 129 } },
      'spec.workers.replicas: Invalid value: "object": must not be above trainer.builtIn.recipe.batchSize (128 if absent)',
    ],
    [
      'TrainingJob',
      { ...recipe({ batchSize: 3 }), workers: { replicas: 4 } },
      'spec.workers.replicas: Invalid value: "object": must not be above trainer.builtIn.recipe.batchSize',
    ],
    [
      'TrainingJob',
      recipe({ optimizer: { adamW: {} } }),
      'spec.trainer.builtIn.recipe.optimizer.adamW: Forbidden: only with type AdamW',
    ],
    [
      'TrainingJob',
      recipe({ optimizer: { type: 'AdamW', sgd: {} } }),
      'spec.trainer.builtIn.recipe.optimizer.sgd: Forbidden: only with type SGD',
    ],
    [
      'TrainingJob',
      recipe({ augmentations: [{ type: 'HorizontalFlip', randomCrop: { padding: 2 } }] }),
      'spec.trainer.builtIn.recipe.augmentations[0].randomCrop: Forbidden: only with type RandomCrop',
    ],
    [
      'TrainingJob',
      { ...LEAST.TrainingJob, trainer: { type: 'BuiltIn', builtIn: { model: { name: 'ResNet20', stem: 'Large' } } } },
      'spec.trainer.builtIn.model.stem: Invalid value: "object": ResNet20 has only Small',
    ],
    [
      'TrainingJob',
      { ...LEAST.TrainingJob, trainer: { type: 'BuiltIn' } },
      'spec.trainer.builtIn: Required value: needed with type BuiltIn',
    ],
    [
      'ModelExport',
      { source: { type: 'TrainingJob' } },
      'spec.source.trainingJob: Required value: needed with type TrainingJob',
    ],
    ['InferenceService', { model: { type: 'Export' } }, 'spec.model.export: Required value: needed with type Export'],
  ];
  for (const [kind, spec, words] of table) {
    const said = await refusal(kind, spec);
    assert.ok(said?.includes(words), `${JSON.stringify(spec)}: expected ${words}, got ${said}`);
  }
});

/** Values of which one fits whatever pattern a field has. */
const SAMPLES = ['a', '1', '1%', 'http://a/b', DIGEST];
const TOO_LONG = 'a'.repeat(100_000);

function fits(schema: Schema, text: string): boolean {
  return (
    (schema.pattern === undefined || new RegExp(schema.pattern as string).test(text)) &&
    text.length >= ((schema.minLength as number) ?? 0) &&
    text.length <= ((schema.maxLength as number) ?? Number.POSITIVE_INFINITY)
  );
}

/** A value that the schema takes, with every field there is. */
function sample(schema: Schema): unknown {
  if (schema.enum) return schema.enum[0];
  if (schema.properties) {
    return Object.fromEntries(Object.entries(schema.properties).map(([name, inner]) => [name, sample(inner)]));
  }
  if (schema.additionalProperties) return { a: sample(schema.additionalProperties) };
  if (schema.type === 'array') return [sample(schema.items!)];
  if (schema.type === 'boolean') return true;
  if (schema.type === 'string') return SAMPLES.find((text) => fits(schema, text));
  // A number, also where a string is taken as well.
  return schema.exclusiveMinimum ? (schema.maximum as number) : ((schema.minimum as number) ?? 0);
}

/** Values that the schema must refuse. */
function wrong(schema: Schema): unknown[] {
  const values: unknown[] = [];
  const { minimum, maximum, maxLength, minLength, maxItems, maxProperties, pattern } = schema as Record<string, never>;
  const step = schema.type === 'number' ? 1e-9 : 1;
  if (minimum !== undefined) values.push(schema.exclusiveMinimum ? minimum : minimum - step);
  if (maximum !== undefined) values.push(schema.exclusiveMaximum ? maximum : maximum + step);
  if (maxLength !== undefined) values.push(TOO_LONG.slice(0, maxLength + 1));
  if (minLength !== undefined) values.push('a'.repeat(minLength - 1));
  if (pattern !== undefined) values.push('!? ');
  if (schema.enum) values.push('Unheard');
  if (maxItems !== undefined) values.push(Array.from({ length: maxItems + 1 }, () => sample(schema.items!)));
  if (maxProperties !== undefined) {
    const keys = Array.from({ length: maxProperties + 1 }, (_, i) => `k${i}`);
    values.push(Object.fromEntries(keys.map((key) => [key, sample(schema.additionalProperties!)])));
  }
  if (schema.type === 'integer') values.push(1.5);
  values.push(schema.type === 'boolean' || schema['x-kubernetes-int-or-string'] ? ['a list'] : true);
  return values;
}

/** Each wrong value of each field below a node: how to put it into a sample of the node, and its path. */
interface Case {
  path: string;
  value: unknown;
  /** Undefined: the field is left out. */
  put: (value: unknown) => unknown;
}

function cases(schema: Schema, path: string, put: Case['put']): Case[] {
  const own = wrong(schema).map((value) => ({ path, value, put }));
  if (schema.properties) {
    const whole = sample(schema) as object;
    const below = Object.entries(schema.properties).flatMap(([name, inner]) =>
      cases(inner, `${path}.${name}`, (value) => put({ ...whole, [name]: value })),
    );
    const absent = (schema.required ?? []).map((name) => ({
      path: `${path}.${name}`,
      value: undefined,
      put: (value: unknown) => put({ ...whole, [name]: value }),
    }));
    return [...own, ...absent, ...below];
  }
  if (schema.items) return [...own, ...cases(schema.items, `${path}[0]`, (value) => put([value]))];
  if (schema.additionalProperties) {
    return [...own, ...cases(schema.additionalProperties, `${path}.a`, (value) => put({ a: value }))];
  }
  return own;
}

const excerpt = (value: unknown) => (JSON.stringify(value) ?? 'nothing').slice(0, 80);

for (const kind of KINDS) {
  it(`of a ${kind.kind}, every wrong value of every field is refused with the field's path`, async () => {
    const { properties } = customResourceDefinition(kind).spec.versions[0].schema.openAPIV3Schema;
    const all = cases(properties.spec, 'spec', (value) => value);
    assert.ok(all.length > 60, `only ${all.length} cases`);
    const next = all.values();
    const worker = async () => {
      for (const { path, value, put } of next) {
        const said = await refusal(kind.kind, put(value));
        assert.ok(said !== undefined, `${path}: ${excerpt(value)} was taken`);
        assert.ok(said.includes(`${path}: `), `${path}: ${excerpt(value)}: the server said ${said.slice(0, 1000)}`);
      }
    };
    await Promise.all([worker(), worker(), worker(), worker()]);
  });
}

it('a name that leaves no room for those of its pods is refused', async () => {
  const words = /metadata\.name must be a DNS label of at most 40 characters/;
  assert.match((await refusal('Dataset', LEAST.Dataset, 'a'.repeat(41))) ?? '', words);
  assert.match((await refusal('Dataset', LEAST.Dataset, 'with.dot')) ?? '', words);
  assert.is(await refusal('Dataset', LEAST.Dataset, 'a'.repeat(40)), undefined);
});

it('status is written by itself, and a write of the spec leaves it alone', async () => {
  const datasets = RESOURCES.datasets;
  const created = await client.create(datasets, { ...objectOf('Dataset', LEAST.Dataset), status: { samples: 1 } });
  assert.is(created.status, undefined);
  const status = { observedGeneration: 1, samples: 5, resolved: { quarantine: { max: '1%' } } };
  const written = await client.replaceStatus(datasets, { ...created, status });
  assert.equal(written.status, status);
  const { name } = created.metadata!;
  const suspended = await client.patch<Custom>(datasets, 'default', name!, {
    spec: { suspend: true },
    status: { samples: 6 },
  });
  assert.equal(suspended.status, status);
  assert.equal(suspended.spec, { ...LEAST.Dataset, suspend: true });
});

it('objects are found by what they name', async () => {
  const created = await client.create(
    RESOURCES.trainingJobs,
    objectOf('TrainingJob', { ...LEAST.TrainingJob, datasetRef: { name: 'rare' } }),
  );
  const selection = { namespace: 'default', fieldSelector: 'spec.datasetRef.name=rare' };
  const found = await client.list<Custom>(RESOURCES.trainingJobs, selection);
  assert.equal(
    found.items.map((item) => item.metadata?.name),
    [created.metadata?.name],
  );
});

it.run();
