/**
 * From a kind's zod schemas to its CustomResourceDefinition: a structural OpenAPI v3 schema with every string, list and map
 * bounded (CEL's cost is estimated from the bounds), unions and rules as CEL, and defaults told in words only, because a schema
 * default is applied on every read and would change every stored spec with an upgrade.
 */
import { z } from 'zod';
import type { Kind } from './kinds.ts';
import { GROUP, VERSION } from './object.ts';

/** CEL of a node (x-kubernetes-validations). */
export interface Rule {
  rule: string;
  message: string;
  /** The field that the API server names, below the node. */
  fieldPath?: string;
  reason?: string;
}

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

/** What z.toJSONSchema makes of our types; the metadata of `.meta()` lies beside JSON Schema's own keywords. */
export interface JsonSchema {
  type?: string;
  description?: string;
  default?: unknown;
  properties?: Record<string, JsonSchema>;
  required?: string[];
  items?: JsonSchema;
  /** False: there are no others than `properties`. */
  additionalProperties?: JsonSchema | false;
  anyOf?: JsonSchema[];
  union?: Record<string, string | null>;
  unionRequired?: boolean;
  rules?: Rule[];
  listMapKeys?: string[];
  maxProperties?: number;
  maxItems?: number;
  maxLength?: number;
  schemaDefault?: unknown;
  [keyword: string]: unknown;
}

/** JSON Schema of a zod type, as users write it: what has a default may be left out. */
export function jsonSchema(type: z.ZodType): JsonSchema {
  return z.toJSONSchema(type, { io: 'input', target: 'openapi-3.0', reused: 'inline' }) as JsonSchema;
}

/** Keywords that mean the same in both. In OpenAPI 3.0, `exclusiveMinimum` is a flag beside `minimum`. */
const KEPT = [
  'type',
  'format',
  'enum',
  'minimum',
  'exclusiveMinimum',
  'maximum',
  'exclusiveMaximum',
  'minLength',
  'maxLength',
  'pattern',
  'minItems',
  'maxItems',
  'maxProperties',
];
const SCALARS = ['string', 'integer', 'number', 'boolean'];

/** JSON as a person reads it in a sentence. */
const inWords = (value: unknown) => `\`${typeof value === 'string' ? value : JSON.stringify(value)}\``;

/** A default as words; undefined where there is none, or only an empty object that is filled in below. */
export function defaultInWords(source: JsonSchema): string | undefined {
  const { default: usual } = source;
  return usual === undefined || JSON.stringify(usual) === '{}' ? undefined : inWords(usual);
}

/**
 * One node and all below it. In a `status` there are no rules, and no default is told: the operator writes it, and a rule
 * could only keep it from saying what it saw.
 *
 * @throws Error with the path of a node that is unbounded, undescribed, or has no place in a structural schema
 */
export function openApi(source: JsonSchema, path: string, part: 'spec' | 'status'): Schema {
  const node: Schema = keywords(source);
  const usual = part === 'spec' ? defaultInWords(source) : undefined;
  const description = [source.description, usual && `Default: ${usual}.`].filter(Boolean).join(' ');
  if (description !== '') node.description = description;
  if (source.schemaDefault !== undefined) node.default = source.schemaDefault;

  if (source.anyOf) {
    Object.assign(node, integerOrString(source.anyOf, path));
  } else if (source.type === 'object' && source.properties) {
    node.properties = {};
    for (const [name, property] of Object.entries(source.properties)) {
      if (property.description === undefined && !property.properties)
        throw new Error(`${path}.${name}: needs a description`);
      node.properties[name] = openApi(property, `${path}.${name}`, part);
    }
    // What an earlier version wrote in part (`resolved`) stays valid; items of lists are written as a whole, and have keys.
    const whole = part === 'spec' || path.endsWith('[]');
    const required = source.required?.filter((name) => whole && source.properties?.[name].default === undefined) ?? [];
    if (required.length > 0) node.required = required;
  } else if (source.type === 'object') {
    if (!source.additionalProperties) throw new Error(`${path}: an object needs properties, or is a map`);
    if (source.maxProperties === undefined) throw new Error(`${path}: a map needs maxProperties`);
    node.additionalProperties = openApi(source.additionalProperties, `${path}.*`, part);
  } else if (source.type === 'array') {
    if (source.maxItems === undefined) throw new Error(`${path}: a list needs a maximum length`);
    node.items = openApi(source.items!, `${path}[]`, part);
    node['x-kubernetes-list-type'] = source.listMapKeys ? 'map' : 'atomic';
    if (source.listMapKeys) node['x-kubernetes-list-map-keys'] = source.listMapKeys;
  } else if (!SCALARS.includes(source.type ?? '')) {
    throw new Error(`${path}: ${source.type ?? 'a node without a type'} has no place in a structural schema`);
  } else if (source.type === 'string' && !isBounded(source)) {
    throw new Error(`${path}: a string needs a maximum length`);
  }

  const rules = part === 'spec' ? [...unionRules(source), ...(source.rules ?? [])] : [];
  if (rules.length > 0) node['x-kubernetes-validations'] = rules;
  return node;
}

function keywords(source: JsonSchema): Schema {
  const node: Schema = {};
  for (const key of KEPT) if (source[key] !== undefined) node[key] = source[key];
  // The bounds of safe integers are zod's own and say nothing to a person.
  if (node.minimum === Number.MIN_SAFE_INTEGER) delete node.minimum;
  if (node.maximum === Number.MAX_SAFE_INTEGER) delete node.maximum;
  if (node.type === 'integer') node.format = 'int64';
  return node;
}

/** The one choice of types that a structural schema knows; the keywords of either apply to values of its type only. */
function integerOrString(members: JsonSchema[], path: string): Schema {
  const [integer, string] = [members.find((m) => m.type === 'integer'), members.find((m) => m.type === 'string')];
  if (members.length !== 2 || !integer || !string) {
    throw new Error(`${path}: the only choice of types is integer or string`);
  }
  if (!isBounded(string)) throw new Error(`${path}: a string needs a maximum length`);
  const { type: _, format: __, ...bounds } = { ...keywords(integer), ...keywords(string) };
  return { anyOf: [{ type: 'integer' }, { type: 'string' }], 'x-kubernetes-int-or-string': true, ...bounds };
}

/** By a maximum, by listing its values, or by a pattern that repeats nothing without end. */
function isBounded(source: JsonSchema): boolean {
  const pattern = String(source.pattern ?? '+');
  return source.enum !== undefined || source.maxLength !== undefined || /^\^[^+*]*\$$/.test(pattern);
}

/** The member that `type` does not name is refused; the one it names must be there if nothing can stand for it. */
function unionRules(source: JsonSchema): Rule[] {
  const usual = source.properties?.type?.default;
  const type = usual === undefined ? 'self.type' : `(has(self.type) ? self.type : '${usual}')`;
  return Object.entries(source.union ?? {}).flatMap(([value, member]): Rule[] => {
    if (member === null) return [];
    const only: Rule = {
      rule: `!has(self.${member}) || ${type} == '${value}'`,
      message: `only with type ${value}`,
      fieldPath: `.${member}`,
      reason: 'FieldValueForbidden',
    };
    const needed: Rule = {
      rule: `${type} != '${value}' || has(self.${member})`,
      message: `needed with type ${value}`,
      fieldPath: `.${member}`,
      reason: 'FieldValueRequired',
    };
    return source.unionRequired ? [only, needed] : [only];
  });
}

/** Rules of an object as a whole. */
const ROOT_RULES: Rule[] = [
  {
    // Pods of a Job have the host name <name>-<letter><8 digits>-<attempt>-<index>: a DNS label of at most 63 characters.
    rule: "size(self.metadata.name) <= 40 && !self.metadata.name.contains('.')",
    message: 'metadata.name must be a DNS label of at most 40 characters, so that the host names of its pods fit',
  },
];

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
                spec: {
                  ...openApi(jsonSchema(kind.spec), `${kind.kind}.spec`, 'spec'),
                  description: 'What is wanted.',
                },
                status: {
                  ...openApi(jsonSchema(kind.status), `${kind.kind}.status`, 'status'),
                  description: 'What the operator saw and did.',
                },
              },
              'x-kubernetes-validations': ROOT_RULES,
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
