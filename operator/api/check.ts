/** What the API server could not refuse, said with the field's path. */
import { type JsonSchema, jsonSchema } from './crd.ts';
import { KINDS, type Kind } from './kinds.ts';

/** `spec.a.b[0].c`. */
function fieldPath(path: readonly PropertyKey[]): string {
  return ['spec', ...path].reduce<string>(
    (text, part) =>
      typeof part === 'number' ? `${text}[${part}]` : text === '' ? String(part) : `${text}.${String(part)}`,
    '',
  );
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Members of unions that do not belong to their `type`, or that it lacks. The CRD says this as CEL, so that it matters only for
 * objects that were stored under another version of the CRD.
 */
function unionProblems(schema: JsonSchema, value: unknown, path: readonly PropertyKey[]): string[] {
  if (Array.isArray(value) && schema.items) {
    return value.flatMap((item, index) => unionProblems(schema.items!, item, [...path, index]));
  }
  if (!isObject(value)) return [];
  const type = value.type ?? schema.properties?.type?.default;
  const own = Object.entries(schema.union ?? {}).flatMap(([of, member]) => {
    if (member === null) return [];
    const given = value[member] !== undefined;
    if (given && type !== of) return [`${fieldPath([...path, member])}: only with type ${of}`];
    if (!given && type === of && schema.unionRequired)
      return [`${fieldPath([...path, member])}: needed with type ${of}`];
    return [];
  });
  const below = Object.entries(schema.properties ?? {}).flatMap(([name, inner]) =>
    unionProblems(inner, value[name], [...path, name]),
  );
  return [...own, ...below];
}

/** Class names that are listed twice: too many pairs for the CRD's rules to compare. */
function repeatedClasses(spec: unknown): string[] {
  const classes: unknown = isObject(spec) ? spec.classes : undefined;
  if (!Array.isArray(classes)) return [];
  const first = new Map<unknown, number>();
  return classes.flatMap((name, index) => {
    const before = first.get(name);
    if (before === undefined) first.set(name, index);
    return before === undefined ? [] : [`spec.classes[${index}]: '${name}' is already at index ${before}`];
  });
}

const CHECKS = new Map(KINDS.map(({ kind, spec }) => [kind, { spec, schema: jsonSchema(spec) }]));

/** Messages `spec.<path>: <what is wrong>`; none if the spec is good. */
export function checkSpec(kind: Kind['kind'], object: { spec: unknown }): string[] {
  const { spec, schema } = CHECKS.get(kind)!;
  const outcome = spec.safeParse(object.spec);
  const wrong = outcome.success
    ? []
    : outcome.error.issues.flatMap((issue) =>
        issue.code === 'unrecognized_keys'
          ? issue.keys.map((key) => `${fieldPath([...issue.path, key])}: unknown field; this operator does not have it`)
          : [`${fieldPath(issue.path)}: ${issue.message}`],
      );
  return [
    ...wrong,
    ...unionProblems(schema, object.spec, []),
    ...(kind === 'Dataset' ? repeatedClasses(object.spec) : []),
  ];
}
