/** `npm run generate`: writes crds/ and docs/reference/ from the kinds. With `--check`: exit code 1 if a file is stale. */
import { globSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { argv, exit, stdout } from 'node:process';
import { stringify } from 'yaml';
import { customResourceDefinition } from './crd.ts';
import { referencePage } from './docs.ts';
import { KINDS } from './kinds.ts';
import { GROUP } from './object.ts';

const ROOT = path.join(import.meta.dirname, '../..');
const WORDS = 'Generated from operator/api by npm run generate. Do not edit.';

/** Text by path below the root. */
const files = new Map(
  KINDS.flatMap((kind): [string, string][] => {
    const word = kind.kind.toLowerCase();
    const example = readFileSync(path.join(import.meta.dirname, 'examples', `${word}.yaml`), 'utf8');
    const crd = stringify(customResourceDefinition(kind), { lineWidth: 0, aliasDuplicateObjects: false });
    return [
      [`crds/${GROUP}_${kind.plural}.yaml`, `# ${WORDS}\n${crd}`],
      [`docs/reference/${word}.md`, `<!-- ${WORDS} -->\n\n${referencePage(kind, example)}`],
    ];
  }),
);

function textOf(name: string): string | undefined {
  try {
    return readFileSync(path.join(ROOT, name), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

const stale = [...files.keys()].filter((name) => textOf(name) !== files.get(name));
const left = globSync(['crds/*', 'docs/reference/*'], { cwd: ROOT }).filter((name) => !files.has(name));

if (argv.includes('--check')) {
  for (const name of stale) stdout.write(`${name} is stale: npm run generate\n`);
  for (const name of left)
    stdout.write(`${name} is not generated and lies in a generated folder: npm run generate removes it\n`);
  exit(stale.length + left.length > 0 ? 1 : 0);
}
for (const name of stale) {
  const file = path.join(ROOT, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(`${file}.part`, files.get(name)!);
  renameSync(`${file}.part`, file);
  stdout.write(`${name}\n`);
}
for (const name of left) {
  rmSync(path.join(ROOT, name));
  stdout.write(`${name} removed\n`);
}
