/** The reference page of a kind, from the same declaration as its CRD. */
import { customResourceDefinition, type Schema } from './crd.ts';
import type { Kind } from './kinds.ts';

interface Row {
  path: string;
  type: string;
  bounds: string;
  description: string;
}

function typeOf(schema: Schema): string {
  if (schema['x-kubernetes-int-or-string']) return 'integer or string';
  if (schema.type === 'array') return `list of ${typeOf(schema.items!)}`;
  if (schema.additionalProperties) return `map of ${typeOf(schema.additionalProperties)}`;
  return schema.type ?? '';
}

function boundsOf(schema: Schema): string {
  if (schema.enum) return schema.enum.map((value) => `\`${value}\``).join(', ');
  const least = schema.minimum !== undefined ? `${schema.exclusiveMinimum ? '>' : '≥'} ${schema.minimum}` : '';
  const most = schema.maximum !== undefined ? `${schema.exclusiveMaximum ? '<' : '≤'} ${schema.maximum}` : '';
  const items = schema.maxItems !== undefined ? `≤ ${schema.maxItems} items` : '';
  return [least, most, items].filter((part) => part !== '').join(', ');
}

/** Every field below a node, depth first, in the order of the declaration. */
function rows(schema: Schema, path: string, required: boolean): Row[] {
  const own: Row = {
    path,
    type: typeOf(schema) + (required ? ', required' : ''),
    bounds: boundsOf(schema),
    description: schema.description ?? '',
  };
  const inner = schema.items ?? schema.additionalProperties ?? schema;
  const below = Object.entries(inner.properties ?? {}).flatMap(([name, property]) => {
    const place = schema.items
      ? `${path}[].${name}`
      : schema.additionalProperties
        ? `${path}.*.${name}`
        : `${path}.${name}`;
    return rows(property, place, inner.required?.includes(name) ?? false);
  });
  return [own, ...below];
}

const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

function table(fields: Row[]): string {
  const lines = fields.map(
    ({ path, type, bounds, description }) => `| \`${path}\` | ${type} | ${cell(bounds)} | ${cell(description)} |`,
  );
  return ['| field | type | bounds | what it is |', '|---|---|---|---|', ...lines].join('\n');
}

/** Markdown of `docs/reference/<plural>.md`, without the header that generated files carry. */
export function referencePage(kind: Kind): string {
  const version = customResourceDefinition(kind).spec.versions[0];
  const { spec, status } = version.schema.openAPIV3Schema.properties as Record<string, Schema>;
  const columns = kind.columns.map(({ name, jsonPath }) => `| ${name} | \`${cell(jsonPath)}\` |`).join('\n');
  return `# ${kind.kind}

${kind.description}

Group \`fovea.dev\`, version \`v1alpha1\`, short name \`${kind.shortName}\`, category \`fovea\`.

## spec

${table(rows(spec, 'spec', true))}

## status

${table(rows(status, 'status', false))}

## Columns of kubectl get

| column | from |
|---|---|
${columns}
`;
}
