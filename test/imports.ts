/** Imports go one way: the arrows between folders, checked. Pure. */
import path from 'node:path/posix';

/** A file's folder and what it may import of the project, by prefix; the first row that fits the file counts. */
const ARROWS: readonly { files: string; may: readonly string[] }[] = [
  { files: 'operator/kube/', may: ['operator/kube/'] },
  { files: 'operator/api/', may: ['operator/api/', 'trainer-image/contract.ts'] },
  { files: 'operator/manifests/', may: ['operator/manifests/', 'operator/api/', 'trainer-image/contract.ts'] },
  {
    files: 'operator/plan/',
    may: ['operator/plan/', 'operator/manifests/', 'operator/api/', 'trainer-image/contract.ts'],
  },
  {
    files: 'operator/reconcile/',
    may: [
      'operator/reconcile/',
      'operator/plan/',
      'operator/manifests/',
      'operator/api/',
      'operator/kube/',
      'trainer-image/contract.ts',
    ],
  },
  { files: 'operator/', may: ['operator/', 'trainer-image/contract.ts'] },
  { files: 'trainer-image/', may: ['trainer-image/'] },
  { files: 'test/', may: [''] },
  { files: 'examples/', may: [''] },
];

const IMPORT = /^\s*(?:import|export)\b[^'"]*?from\s+['"](\.[^'"]+)['"]|\bimport\(\s*['"](\.[^'"]+)['"]\s*\)/gm;

/** Sentences, one for each import of `source` that goes the wrong way. Tests may import what they test with. */
export function wrongImports(file: string, source: string): string[] {
  if (file.endsWith('.test.ts')) return [];
  const arrow = ARROWS.find(({ files }) => file.startsWith(files));
  if (!arrow) return [];
  const wrong: string[] = [];
  for (const match of source.matchAll(IMPORT)) {
    const target = path.join(path.dirname(file), match[1] ?? match[2]);
    if (!arrow.may.some((prefix) => target.startsWith(prefix))) {
      wrong.push(`${file} imports ${target}: files in ${arrow.files} may import only ${arrow.may.join(', ')}`);
    }
  }
  return wrong;
}
