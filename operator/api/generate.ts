/** `npm run generate`: writes crds/ and docs/reference/ from the kinds. With `--check`: exit code 1 if a file is stale. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { argv, exit, stdout } from 'node:process';
import { stringify } from 'yaml';
import { customResourceDefinition } from './crd.ts';
import { referencePage } from './docs.ts';
import { KINDS } from './kinds.ts';
import { GROUP } from './object.ts';

const ROOT = path.join(import.meta.dirname, '../..');
const WORDS = 'Generated from operator/api by npm run generate. Do not edit.';

const files = KINDS.flatMap((kind) => [
  {
    name: `crds/${GROUP}_${kind.plural}.yaml`,
    text: `# ${WORDS}\n${stringify(customResourceDefinition(kind), { lineWidth: 0, aliasDuplicateObjects: false })}`,
  },
  { name: `docs/reference/${kind.plural}.md`, text: `<!-- ${WORDS} -->\n\n${referencePage(kind)}` },
]);

function current(name: string): string | undefined {
  try {
    return readFileSync(path.join(ROOT, name), 'utf8');
  } catch {
    return undefined; // not there yet
  }
}

const stale = files.filter(({ name, text }) => current(name) !== text);
if (argv.includes('--check')) {
  for (const { name } of stale) stdout.write(`${name} is stale: npm run generate\n`);
  exit(stale.length > 0 ? 1 : 0);
}
for (const { name, text } of stale) {
  const file = path.join(ROOT, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(`${file}.part`, text);
  renameSync(`${file}.part`, file);
  stdout.write(`${name}\n`);
}
