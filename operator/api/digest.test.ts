import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parse } from 'yaml';
import { type JsonSchema, jsonSchema } from './crd.ts';
import { inputDigest, LEFT_OUT } from './digest.ts';
import { KINDS } from './kinds.ts';

const it = suite('input digest');

const SPEC = {
  datasetRef: { name: 'fashion' },
  trainer: {
    type: 'BuiltIn',
    builtIn: { model: { name: 'ResNet18' }, recipe: { optimizer: { learningRate: 0.001 }, epochs: 10 } },
  },
};
const INPUTS = [{ kind: 'Dataset', digest: `sha256:${'a'.repeat(64)}` }];
const DIGEST = inputDigest('trainingjob', SPEC, INPUTS);

it('is a SHA-256 that stays the same over versions of Fovea', () => {
  // Computed by Python's json and hashlib. A change of this value would run every finished job of every cluster again.
  assert.is(DIGEST, 'sha256:9d41080475a5ec3f6724f534ff197ccc52f0533ffc3b6836f4cead581597bb64');
});

it('takes 1e-3 and 0.001, 10 and 10.0 for the same number', () => {
  const written = (rate: string, epochs: string) =>
    parse(
      `{datasetRef: {name: fashion}, trainer: {type: BuiltIn, builtIn: {model: {name: ResNet18}, recipe: {epochs: ${epochs}, optimizer: {learningRate: ${rate}}}}}}`,
    );
  assert.is(inputDigest('trainingjob', written('1e-3', '10.0'), INPUTS), DIGEST);
  assert.is(inputDigest('trainingjob', written('0.0010', '1.0e+1'), INPUTS), DIGEST);
  assert.is.not(inputDigest('trainingjob', written('0.0011', '10'), INPUTS), DIGEST);
});

it('does not depend on the order of keys', () => {
  const turned = (value: unknown): unknown =>
    value !== null && typeof value === 'object'
      ? Object.fromEntries(
          Object.entries(value)
            .reverse()
            .map(([name, inner]) => [name, turned(inner)]),
        )
      : value;
  assert.is(inputDigest('trainingjob', turned(SPEC) as object, INPUTS), DIGEST);
});

it('is left alone by placement, resources, retention and suspension', () => {
  const more = {
    ...SPEC,
    suspend: true,
    rerun: 'Never',
    workers: { replicas: 1, resources: { limits: { cpu: 8 } }, pod: { labels: { a: 'b' } } },
    checkpoints: { keepLast: 9 },
    store: { type: 'PVC', pvc: { claimName: 'other' } },
  };
  assert.is(inputDigest('trainingjob', more, INPUTS), DIGEST);
});

it('changes with what is consumed, with a reference to another object, and with a rerun asked for by hand', () => {
  const others = [
    inputDigest('trainingjob', SPEC, [{ kind: 'Dataset', digest: `sha256:${'b'.repeat(64)}` }]),
    inputDigest('trainingjob', { ...SPEC, datasetRef: { name: 'other' } }, INPUTS),
    inputDigest('trainingjob', SPEC, INPUTS, '2026-01-01T00:00:00Z'),
    inputDigest('modelexport', SPEC, INPUTS),
    DIGEST,
  ];
  assert.is(new Set(others).size, others.length);
});

it('takes a default that is written out for something else than one left out, since defaults may change', () => {
  const written = structuredClone(SPEC);
  Object.assign(written.trainer.builtIn.recipe, { batchSize: 128 });
  assert.is.not(inputDigest('trainingjob', written, INPUTS), DIGEST);
});

it('of a service ignores the gateway’s timeout and the name of the model, not what its pods are given', () => {
  const spec = { model: { type: 'Export', export: { name: 'a' } }, runtime: { type: 'OnnxRuntime' } };
  const digest = inputDigest('inferenceservice', spec, INPUTS);
  const same = {
    ...spec,
    model: { type: 'Export', export: { name: 'b' } },
    request: { timeoutSeconds: 5 },
    replicas: 4,
  };
  assert.is(inputDigest('inferenceservice', same, INPUTS), digest);
  const bodies = { ...spec, request: { timeoutSeconds: 5, maxBodyBytes: 1000 } };
  assert.is.not(inputDigest('inferenceservice', bodies, INPUTS), digest);
  const cpus = { ...spec, runtime: { type: 'OnnxRuntime', resources: { limits: { cpu: 4 } } } };
  assert.is.not(inputDigest('inferenceservice', cpus, INPUTS), digest);
});

/** Every node of a schema with its path. */
function nodes(schema: JsonSchema, path: string): [string, JsonSchema][] {
  const below = [
    ...Object.entries(schema.properties ?? {}).flatMap(([name, inner]) =>
      nodes(inner, path ? `${path}.${name}` : name),
    ),
    ...(schema.items ? nodes(schema.items, `${path}[]`) : []),
  ];
  return [[path, schema], ...below];
}

it('leaves out only fields that exist, and no field that enters it has a default in the CRD', () => {
  for (const { kind, spec } of KINDS) {
    const left: readonly string[] = LEFT_OUT[kind.toLowerCase() as keyof typeof LEFT_OUT];
    const all = nodes(jsonSchema(spec), '');
    for (const path of left)
      assert.ok(
        all.some(([known]) => known === path),
        `${kind} has no spec.${path}`,
      );
    for (const [path, node] of all) {
      const out = left.some((field) => path === field || path.startsWith(`${field}.`));
      if (node.schemaDefault !== undefined) assert.ok(out, `${kind} spec.${path} enters the digest and has a default`);
    }
  }
});

it.run();
