/** The reference page of a kind, from the same declaration as its CRD. Pure. */
import { type ConditionMeaning, REASONS, type ReasonMeaning } from './conditions.ts';
import { defaultInWords, type JsonSchema, jsonSchema, openApi, type Rule, type Schema } from './crd.ts';
import type { Kind } from './kinds.ts';
import { GROUP, VERSION } from './object.ts';

interface Row {
  path: string;
  type: string;
  required: boolean;
  usual: string;
  bounds: string;
  description: string;
}

function typeOf(schema: Schema): string {
  if (schema['x-kubernetes-int-or-string']) return 'integer or string';
  if (schema.type === 'array') return `list of ${typeOf(schema.items!)}`;
  if (schema.additionalProperties) return `map of ${typeOf(schema.additionalProperties)}`;
  return schema.format === 'date-time' ? 'time' : (schema.type ?? '');
}

function range(least: unknown, most: unknown, unit: string): string {
  if (least === undefined && most === undefined) return '';
  if (least === most) return `${least}${unit}`;
  if (least === undefined) return `≤ ${most}${unit}`;
  if (most === undefined) return `≥ ${least}${unit}`;
  return `${least} to ${most}${unit}`;
}

/** What a value may be, in as few words as a table's cell has room for. */
function boundsOf(schema: Schema): string {
  if (schema.enum) return schema.enum.map((value) => `\`${value}\``).join(', ');
  const numbers =
    schema.exclusiveMinimum || schema.exclusiveMaximum
      ? [
          `${schema.exclusiveMinimum ? '>' : '≥'} ${schema.minimum}`,
          `${schema.exclusiveMaximum ? '<' : '≤'} ${schema.maximum}`,
        ].join(', ')
      : range(schema.minimum, schema.maximum, '');
  const length = range(schema.minLength, schema.maxLength, ' characters');
  const items = range(schema.minItems, schema.maxItems, ' items');
  const keys = range(undefined, schema.maxProperties, ' keys');
  const pattern = schema.pattern ? `\`${schema.pattern}\`` : '';
  return [numbers, length, items, keys, pattern].filter((part) => part !== '').join('; ');
}

/** What the description does not say yet: a scalar's bounds inside a list or map. */
function boundsWithItems(schema: Schema): string {
  const inner = schema.items ?? schema.additionalProperties;
  const each = inner && !inner.properties ? boundsOf(inner) : '';
  return [boundsOf(schema), each && `each: ${each}`].filter(Boolean).join('; ');
}

/** Every field below a node, depth first, in the order of the declaration. */
function rows(schema: Schema, source: JsonSchema, path: string): Row[] {
  const inner = schema.items ?? schema.additionalProperties ?? schema;
  const innerSource = source.items || source.additionalProperties || source;
  const prefix = schema.items ? `${path}[]` : schema.additionalProperties ? `${path}.*` : path;
  return Object.entries(inner.properties ?? {}).flatMap(([name, property]) => {
    const declared = innerSource.properties![name];
    const place = prefix === '' ? name : `${prefix}.${name}`;
    const row: Row = {
      path: place,
      type: typeOf(property),
      required: inner.required?.includes(name) ?? false,
      usual: defaultInWords(declared) ?? '',
      bounds: boundsWithItems(property),
      description: declared.description ?? '',
    };
    return [row, ...rows(property, declared, place)];
  });
}

const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('\n', ' ');
const line = (...cells: string[]) => `| ${cells.map(cell).join(' | ')} |`;
const table = (head: string[], lines: string[]) =>
  [line(...head), `|${head.map(() => '---').join('|')}|`, ...lines].join('\n');

function specTable(kind: Kind): string {
  const source = jsonSchema(kind.spec);
  const fields = rows(openApi(source, kind.kind, 'spec'), source, '');
  return table(
    ['field', 'type', 'default', 'bounds', 'what it is'],
    fields.map((row) =>
      line(`\`${row.path}\``, row.type, row.required ? 'required' : row.usual, row.bounds, row.description),
    ),
  );
}

/** Bounds of what the operator writes are of no use to a reader, so they are left out. */
function statusTable(kind: Kind): string {
  const source = jsonSchema(kind.status);
  const fields = rows(openApi(source, kind.kind, 'status'), source, '');
  // What is resolved has the form of the spec, which the table above explains.
  const shown = fields.filter(({ path }) => !/^resolved\..*\./.test(path));
  return table(
    ['field', 'type', 'what it is'],
    shown.map((row) => line(`\`${row.path}\``, row.type, row.description)),
  );
}

/** A line for each rule that goes beyond what a field's own bounds say, with the path of what it is about. */
function rules(schema: Schema, path: string): string[] {
  const inner = schema.items ?? schema.additionalProperties ?? schema;
  const prefix = schema.items ? `${path}[]` : schema.additionalProperties ? `${path}.*` : path;
  const own = ((schema['x-kubernetes-validations'] ?? []) as Rule[])
    // The description of a union's member says already which type it belongs to.
    .filter(({ reason }) => reason !== 'FieldValueForbidden')
    .map(({ message, fieldPath = '' }) => `- \`${path}${fieldPath}\`: ${message}`);
  if (inner !== schema) return [...own, ...rules(inner, prefix)];
  return [
    ...own,
    ...Object.entries(schema.properties ?? {}).flatMap(([name, below]) => rules(below, `${path}.${name}`)),
  ];
}

const conditionTable = (conditions: ConditionMeaning[]) =>
  table(
    ['condition', 'True means'],
    conditions.map(({ type, meaning }) => line(`\`${type}\``, meaning)),
  );

function reasonTable(reasons: readonly ReasonMeaning[]): string {
  return table(
    ['reason', 'condition', 'what it means'],
    reasons.map(({ reason, with: type, meaning }) => line(`\`${reason}\``, `\`${type}\``, meaning)),
  );
}

/**
 * Markdown of `docs/reference/<kind>.md`, without the header that generated files carry.
 *
 * @param example YAML of an object of this kind
 */
export function referencePage(kind: Kind, example: string): string {
  const { kind: name, plural, shortName } = kind;
  const columns = kind.columns.map(({ name: column, description, priority }) =>
    line(column, `${description}${priority ? ' Only with `-o wide`.' : ''}`),
  );
  const selectable = kind.selectableFields.map((path) => `\`${path.slice(1)}\``).join(', ');
  return `# ${name}

${kind.description}

\`apiVersion: ${GROUP}/${VERSION}\`, \`kind: ${name}\`, short name \`${shortName}\`; in category \`fovea\` (\`kubectl get fovea\`). Its
name is a DNS label of at most 40 characters.

\`\`\`yaml
${example.trim()}
\`\`\`

## spec

A default is resolved when a run starts and then shown in \`status.resolved\`; it is never written into the spec.

${specTable(kind)}

Beyond single fields:

${rules(openApi(jsonSchema(kind.spec), name, 'spec'), 'spec').join('\n')}

## status

${statusTable(kind)}

## Conditions

At most one of \`Reconciling\` and \`Stalled\` is True. Each condition tells by \`observedGeneration\` which spec it speaks of.

${conditionTable(kind.conditions)}

Reasons of \`Ready\`, with the condition that is True. A pod's own reason (\`ErrImagePull\`, a failure of the trainer) is passed on.

${reasonTable(REASONS[name])}

## kubectl

${table(['column of `kubectl get`', 'what it is'], columns)}

\`kubectl get ${plural} --field-selector\` takes ${selectable}.${
    kind.scale ? `\n\n\`kubectl scale ${plural.slice(0, -1)} NAME --replicas N\` sets \`spec.replicas\`.` : ''
  }
`;
}
