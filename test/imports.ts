/** Imports go one way: the arrows between folders, checked. Pure. */
import path from 'node:path/posix';

const CONTRACT = 'trainer-image/contract.ts';

/** What the files of a folder may import of the project besides the folder itself; the first row that fits a file counts. */
const ARROWS: readonly { files: string; may: readonly string[] }[] = [
  { files: 'operator/kube/', may: [] },
  { files: 'operator/api/', may: [CONTRACT] },
  { files: 'operator/manifests/', may: ['operator/api/', CONTRACT] },
  { files: 'operator/plan/', may: ['operator/manifests/', 'operator/api/', CONTRACT] },
  {
    files: 'operator/reconcile/',
    may: ['operator/plan/', 'operator/manifests/', 'operator/api/', 'operator/kube/', CONTRACT],
  },
  { files: 'operator/web/', may: ['operator/api/', 'operator/kube/', 'operator/log.ts', CONTRACT] },
  {
    files: 'operator/gateway/',
    may: ['operator/api/', 'operator/kube/', 'operator/manifests/labels.ts', 'operator/log.ts', CONTRACT],
  },
  { files: 'operator/', may: [CONTRACT] },
  { files: 'trainer-image/', may: [] },
  { files: 'test/', may: [''] },
  { files: 'examples/', may: [''] },
];

/** `import ... from './a.ts'`, `export ... from`, `import './a.ts'`, `import('./a.ts')`, `new URL('./a.ts', import.meta.url)`. */
const IMPORTS = [
  /^[ \t]*(?:import|export)\b[^'";]*?\bfrom\s*['"](\.[^'"]+)['"]/gm,
  /^[ \t]*import\s*['"](\.[^'"]+)['"]/gm,
  /\bimport\(\s*['"](\.[^'"]+)['"]/g,
  /\bnew URL\(\s*['"](\.[^'"]+\.(?:ts|mjs))['"]\s*,\s*import\.meta\.url\s*\)/g,
];

/**
 * Sentences, one for each import of `source` that goes against the arrows. Tests may also import what test/ has to test with.
 *
 * @param file path below the root, such as `operator/kube/queue.ts`
 */
export function wrongImports(file: string, source: string): string[] {
  const arrow = ARROWS.find(({ files }) => file.startsWith(files));
  if (!arrow) return [`${file} is in no folder that has a row in test/imports.ts`];
  const may = [arrow.files, ...arrow.may, ...(file.endsWith('.test.ts') ? ['test/'] : [])];
  const targets = IMPORTS.flatMap((pattern) => [...source.matchAll(pattern)].map((match) => match[1]));
  return targets
    .map((target) => path.join(path.dirname(file), target))
    .filter((target) => !may.some((prefix) => target.startsWith(prefix)))
    .map((target) => `${file} imports ${target}: files in ${arrow.files} may import only ${may.join(', ')}`);
}
