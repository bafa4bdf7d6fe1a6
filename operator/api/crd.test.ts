import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { z } from 'zod';
import { customResourceDefinition, jsonSchema, openApi, type Schema } from './crd.ts';
import { KINDS } from './kinds.ts';

const it = suite('custom resource definition');

const schemaOf = (type: z.ZodType, part: 'spec' | 'status' = 'spec') => openApi(jsonSchema(type), 'x', part);
const property = (type: z.ZodType) => schemaOf(z.strictObject({ a: type.describe('A field') })).properties!.a;

it('tells a default in the description and leaves it out of the schema', () => {
  const schema = schemaOf(z.strictObject({ epochs: z.int().min(1).default(30).describe('Passes.') }));
  assert.equal(schema.properties?.epochs, {
    type: 'integer',
    format: 'int64',
    minimum: 1,
    description: 'Passes. Default: `30`.',
  });
  assert.is(schema.required, undefined);
});

it('has a default only where a field asks for one', () => {
  assert.is(property(z.int().default(1).meta({ schemaDefault: 1 })).default, 1);
});

it('writes bounds that exclude themselves as OpenAPI 3.0 does', () => {
  const { minimum, exclusiveMinimum, maximum, exclusiveMaximum } = property(z.number().gt(0).lt(1));
  assert.equal([minimum, exclusiveMinimum, maximum, exclusiveMaximum], [0, true, 1, true]);
});

it('writes integer or string as Kubernetes does, with the bounds of both', () => {
  assert.equal(property(z.union([z.int().min(0), z.string().regex(/^[0-9]{1,2}%$/)])), {
    description: 'A field',
    anyOf: [{ type: 'integer' }, { type: 'string' }],
    'x-kubernetes-int-or-string': true,
    minimum: 0,
    pattern: '^[0-9]{1,2}%$',
  });
});

it('refuses a member of a union that its type does not name, also where the type is left out', () => {
  const members = { a: z.boolean().optional().describe('a'), b: z.boolean().optional().describe('b') };
  const union = (type: z.ZodType, unionRequired: boolean) =>
    schemaOf(
      z.strictObject({ type: type.describe('type'), ...members }).meta({ union: { A: 'a', B: 'b' }, unionRequired }),
    )['x-kubernetes-validations'] as { rule: string; fieldPath: string }[];
  assert.equal(
    union(z.enum(['A', 'B']), true).map(({ rule, fieldPath }) => [rule, fieldPath]),
    [
      ["!has(self.a) || self.type == 'A'", '.a'],
      ["self.type != 'A' || has(self.a)", '.a'],
      ["!has(self.b) || self.type == 'B'", '.b'],
      ["self.type != 'B' || has(self.b)", '.b'],
    ],
  );
  assert.equal(
    union(z.enum(['A', 'B']).default('A'), false).map(({ rule }) => rule),
    [
      "!has(self.a) || (has(self.type) ? self.type : 'A') == 'A'",
      "!has(self.b) || (has(self.type) ? self.type : 'A') == 'B'",
    ],
  );
});

it('is not made of a string, list or map without an end, and says where it is', () => {
  const unbounded = (type: z.ZodType) => () => property(type);
  assert.throws(unbounded(z.string()), 'x.a: a string needs a maximum length');
  assert.throws(unbounded(z.string().regex(/^a+$/)), 'x.a: a string needs a maximum length');
  assert.throws(unbounded(z.array(z.int())), 'x.a: a list needs a maximum length');
  assert.throws(unbounded(z.array(z.string()).max(3)), 'x.a[]: a string needs a maximum length');
  assert.throws(unbounded(z.record(z.string(), z.int())), 'x.a: a map needs maxProperties');
  assert.throws(unbounded(z.union([z.int(), z.string()])), 'x.a: a string needs a maximum length');
});

it('is not made of a field without a description, or of a type that a structural schema does not have', () => {
  assert.throws(() => schemaOf(z.strictObject({ a: z.int() })), 'x.a: needs a description');
  assert.throws(() => property(z.any()), 'x.a: a node without a type has no place in a structural schema');
  assert.throws(() => property(z.union([z.int(), z.boolean()])), 'x.a: the only choice of types is integer or string');
});

it('has no rule in a status, so that what was seen can always be written', () => {
  const ruled = z
    .strictObject({ a: z.int().default(1).describe('A.') })
    .meta({ rules: [{ rule: 'true', message: 'm' }] });
  assert.ok(schemaOf(ruled)['x-kubernetes-validations']);
  const status = schemaOf(ruled, 'status');
  assert.is(status['x-kubernetes-validations'], undefined);
  assert.is(status.properties?.a.description, 'A.');
});

it('requires of a status only the fields of what is in a list', () => {
  const one = z.strictObject({ name: z.string().max(9).describe('Name.') });
  const both = z.strictObject({ one: one.describe('One.'), many: z.array(one).max(3).describe('Many.') });
  const { required, properties } = schemaOf(both, 'status');
  assert.equal([required, properties?.one.required], [undefined, undefined]);
  assert.equal(properties?.many.items?.required, ['name']);
});

/** Follows `.a.b[?(...)].c` down a schema. */
function at(schema: Schema, path: string): Schema | undefined {
  const parts = path
    .replace(/\[\?[^\]]*\]/g, '[]')
    .split('.')
    .slice(1);
  return parts.reduce<Schema | undefined>((node, part) => {
    const inner = node?.properties?.[part.replace('[]', '')];
    return part.endsWith('[]') ? inner?.items : inner;
  }, schema);
}

it('shows and selects only what its schema has', () => {
  for (const kind of KINDS) {
    const schema = customResourceDefinition(kind).spec.versions[0].schema.openAPIV3Schema as Schema;
    const columns = kind.columns.map(({ jsonPath }) => jsonPath).filter((path) => !path.startsWith('.metadata.'));
    const scale = Object.values(kind.scale ?? {});
    for (const path of [...columns, ...kind.selectableFields, ...scale]) {
      assert.ok(at(schema, path)?.type, `${kind.kind}: there is no ${path}`);
    }
  }
});

it.run();
