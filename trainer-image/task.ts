/**
 * From a command line, or a pod's environment, to a task. Fields are set by a file and by `--set path=value` alike and are held
 * against contract.ts's schemas; what is refused is said by its path.
 */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { parse as parseYAML } from 'yaml';
import { z } from 'zod';
import { ENV, ExportTask, PrepareTask, ServeTask, type Task, TrainTask } from './contract.ts';
import { UserError } from './errors.ts';

export const COMMANDS = {
  prepare: {
    schema: PrepareTask,
    summary: 'Check a folder or tar of pictures and pack it as a dataset.',
    /** Fields that words after the command set, in order. */
    words: ['source'],
  },
  train: { schema: TrainTask, summary: 'Train a model on a packed dataset.', words: ['dataset.digest'] },
  export: {
    schema: ExportTask,
    summary: 'Export a trained model as ONNX and verify it on held-out pictures.',
    words: ['model.digest', 'dataset.digest'],
  },
  serve: { schema: ServeTask, summary: 'Answer for an exported model over HTTP.', words: ['model.digest'] },
} as const;

export type CommandName = keyof typeof COMMANDS;

export interface Invocation {
  command: CommandName;
  task: Task;
  /** Folder of the store. */
  store: string;
}

/** Where a command line's results go unless `--store` or the environment says otherwise. */
const DEFAULT_STORE = 'fovea-store';

type Fields = { [name: string]: unknown };

/** What is asked for; a text if it is only help. Throws UserError. */
export async function readInvocation(words: string[], env: NodeJS.ProcessEnv): Promise<Invocation | string> {
  const { values, positionals } = parseWords(words);
  const [word, ...rest] = positionals;
  if (word === undefined) {
    if (values.help) return usage();
    throw new UserError('InvalidArguments', `no command is given\n\n${usage()}`);
  }
  if (!(word in COMMANDS)) {
    throw new UserError('InvalidArguments', `"${word}" is no command: want ${Object.keys(COMMANDS).join(', ')}`);
  }
  const command = word as CommandName;
  if (values.help) return usageOf(command);

  const fields: Fields = {};
  const ownWords = values.task !== undefined || values.set.length > 0 || rest.length > 0;
  if (values.task !== undefined) Object.assign(fields, await readTaskFile(values.task));
  else if (!ownWords && env[ENV.TASK]) Object.assign(fields, parseFields(env[ENV.TASK]!, ENV.TASK));
  setWords(fields, command, rest);
  for (const assignment of values.set) setField(fields, assignment);

  fields.kind ??= command;
  if (fields.kind !== command) {
    throw new UserError('InvalidTask', `kind: the task is for "${fields.kind}", and the command is "${command}"`);
  }
  if (command !== 'serve') fields.run ??= 'local';
  return {
    command,
    task: checkTask(command, fields),
    store: values.store ?? env[ENV.STORE] ?? DEFAULT_STORE,
  };
}

function parseWords(words: string[]) {
  try {
    return parseArgs({
      args: words,
      allowPositionals: true,
      options: {
        store: { type: 'string' },
        task: { type: 'string' },
        set: { type: 'string', multiple: true, default: [] },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
  } catch (error) {
    throw new UserError('InvalidArguments', (error as Error).message, { cause: error });
  }
}

async function readTaskFile(path: string): Promise<Fields> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new UserError('InvalidTask', `--task ${path} cannot be read: ${(error as Error).message}`, { cause: error });
  }
  return parseFields(text, path);
}

/** YAML, of which JSON is a part. */
function parseFields(text: string, where: string): Fields {
  let value: unknown;
  try {
    value = parseYAML(text);
  } catch (error) {
    throw new UserError('InvalidTask', `${where} is neither YAML nor JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (!isFields(value)) throw new UserError('InvalidTask', `${where} holds no task: want fields, as in "run: local"`);
  return value;
}

function setWords(fields: Fields, command: CommandName, words: string[]): void {
  const names: readonly string[] = COMMANDS[command].words;
  if (words.length > names.length) {
    throw new UserError(
      'InvalidArguments',
      `"${words[names.length]}" is one word too many: ${command} takes ${names.map((name) => `<${name}>`).join(' ')}`,
    );
  }
  words.forEach((word, i) => {
    if (command !== 'prepare') setPath(fields, names[i]!, word);
    else if (/^https?:\/\//.test(word)) fields.source = { type: 'HTTP', url: word };
    else fields.source = { type: 'Path', path: resolve(word) };
  });
}

/** `path=value`, the value as YAML: `recipe.epochs=3`, `classes=[cat, dog]`. */
function setField(fields: Fields, assignment: string): void {
  const at = assignment.indexOf('=');
  if (at <= 0) {
    throw new UserError('InvalidArguments', `--set ${assignment}: want path=value, as in --set recipe.epochs=3`);
  }
  const path = assignment.slice(0, at);
  const text = assignment.slice(at + 1);
  let value: unknown;
  try {
    value = parseYAML(text);
  } catch {
    value = text; // no YAML, so the words themselves
  }
  setPath(fields, path, value);
}

function setPath(fields: Fields, path: string, value: unknown): void {
  const names = path.split('.');
  const last = names.pop()!;
  let at = fields;
  for (const name of names) {
    if (!Object.hasOwn(at, name)) at[name] = {};
    const next = at[name];
    if (!isFields(next)) {
      throw new UserError('InvalidArguments', `--set ${path}: ${name} is ${JSON.stringify(next)} and has no fields`);
    }
    at = next;
  }
  Object.defineProperty(at, last, { value, enumerable: true, writable: true, configurable: true });
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function checkTask(command: CommandName, fields: Fields): Task {
  const parsed = COMMANDS[command].schema.safeParse(fields);
  if (parsed.success) return parsed.data;
  const lines = parsed.error.issues.flatMap((issue) => describeIssue(issue, fields));
  throw new UserError('InvalidTask', `${lines.join('\n')}\n(npm run trainer -- ${command} --help lists the fields)`);
}

/** `recipe.epochs: 0 is too small: want at least 1` */
function describeIssue(issue: z.core.$ZodIssue, fields: Fields): string[] {
  const path = issue.path.join('.') || 'task';
  const value = valueAt(fields, issue.path);
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => `${[...issue.path, key].join('.')}: there is no such field`);
  }
  if (value === undefined) return [`${path}: is required`];
  const shown = JSON.stringify(value).slice(0, 100);
  switch (issue.code) {
    case 'invalid_value':
      return [`${path}: ${shown} is not allowed: want ${issue.values.map(String).join(', ')}`];
    case 'too_small':
      return [
        `${path}: ${shown} is too small: want ${issue.inclusive === false ? 'more than' : 'at least'} ${issue.minimum}`,
      ];
    case 'too_big':
      return [
        `${path}: ${shown} is too large: want ${issue.inclusive === false ? 'less than' : 'at most'} ${issue.maximum}`,
      ];
    case 'invalid_type':
      return [`${path}: ${shown} is not ${issue.expected === 'int' ? 'an integer' : `of type ${issue.expected}`}`];
    case 'invalid_format':
      return [`${path}: ${shown} is no ${issue.format === 'regex' ? `match of ${issue.pattern}` : issue.format}`];
    default:
      return [`${path}: ${shown}: ${issue.message}`];
  }
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((at, name) => (at as Record<PropertyKey, unknown> | undefined)?.[name], value);
}

// ---------------------------------------------------------------------------------------------- help

function usage(): string {
  const commands = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(9)}${summary}`);
  return [
    'npm run trainer -- COMMAND [WORDS] [--store DIR] [--task FILE] [--set PATH=VALUE ...] [--help]',
    '',
    ...commands,
    '',
    'COMMAND --help lists the fields of its task.',
  ].join('\n');
}

function usageOf(command: CommandName): string {
  const { schema, summary, words } = COMMANDS[command];
  const shown = command === 'prepare' ? 'PATH|URL' : words.map((word) => `<${word}>`).join(' ');
  const json = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Shape;
  return [
    `npm run trainer -- ${command} [${shown}] [--store DIR] [--task FILE] [--set PATH=VALUE ...]`,
    '',
    summary,
    '',
    `  --store DIR        Folder of the store. Default: $${ENV.STORE}, else ${DEFAULT_STORE}.`,
    '  --task FILE        YAML or JSON with fields of the task.',
    '  --set PATH=VALUE   One field; the value is YAML. Stronger than --task.',
    ...(command === 'prepare' ? ['  URL                An HTTP(S) tar; needs --set source.digest=sha256:...'] : []),
    '',
    'Fields:',
    ...describeFields(json, ''),
  ].join('\n');
}

/** What is read of a JSON schema. */
interface Shape {
  type?: string;
  properties?: Record<string, Shape>;
  required?: string[];
  items?: Shape;
  anyOf?: Shape[];
  oneOf?: Shape[];
  enum?: unknown[];
  const?: unknown;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  default?: unknown;
  description?: string;
}

function describeFields(shape: Shape, prefix: string): string[] {
  const lines: string[] = [];
  for (const [name, field] of Object.entries(shape.properties ?? {})) {
    const path = prefix + name;
    if (path === 'kind') continue;
    const members = field.oneOf ?? field.anyOf;
    if (field.properties) {
      lines.push(...describeFields(field, `${path}.`));
    } else if (members?.every((member) => member.properties)) {
      for (const member of members) {
        const { type, ...properties } = member.properties!;
        lines.push(`  ${path}.type=${type?.const ?? ''}`);
        lines.push(...describeFields({ properties, required: member.required }, `${path}.`));
      }
    } else {
      const standing = field.default !== undefined ? `default ${JSON.stringify(field.default)}` : '';
      const needed = shape.required?.includes(name) && path !== 'run' ? 'required' : standing;
      lines.push(`  ${path}  (${[typeOf(field), needed].filter(Boolean).join(', ')})`);
      if (field.description) lines.push(`      ${field.description}`);
    }
  }
  return lines;
}

/** Zod writes the safe integers as bounds where there are none. */
function typeOf(field: Shape): string {
  if (field.enum) return field.enum.join(' | ');
  const members = field.oneOf ?? field.anyOf;
  if (members) return members.map(typeOf).join(' | ');
  if (field.items) return `list of ${field.items.type ?? 'values'}`;
  const low = field.exclusiveMinimum !== undefined ? `> ${field.exclusiveMinimum}` : bound('≥', field.minimum);
  const high = field.exclusiveMaximum !== undefined ? `< ${field.exclusiveMaximum}` : bound('≤', field.maximum);
  return [field.type ?? 'value', low, high].filter(Boolean).join(' ');
}

function bound(sign: string, value: number | undefined): string {
  return value === undefined || Math.abs(value) === Number.MAX_SAFE_INTEGER ? '' : `${sign} ${value}`;
}
