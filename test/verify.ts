/** `npm run verify`: all that can be said of the code without running it. A line a check; exit code 1 if one fails. */
import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { exit, stdout } from 'node:process';
import { wrongImports } from './imports.ts';

/** A check's complaint; empty if it has none. */
type Check = () => string;

function command(...words: string[]): string {
  const { status, stdout: out, stderr, error } = spawnSync(words[0], words.slice(1), { encoding: 'utf8' });
  if (error) return `${words[0]} cannot be started: ${error.message}`;
  return status === 0 ? '' : `${out}${stderr}`.trim() || `${words.join(' ')} exited with ${status}`;
}

const CHECKS: Record<string, Check> = {
  types: () => command('tsc', '--noEmit'),
  'lint and format': () => command('biome', 'ci', '--error-on-warnings', '--colors=off', '.'),
  'generated files are fresh': () => command('node', 'operator/api/generate.ts', '--check'),
  'imports go one way': () =>
    globSync('{operator,trainer-image,test,examples}/**/*.ts')
      .sort()
      .flatMap((file) => wrongImports(file, readFileSync(file, 'utf8')))
      .join('\n'),
};

let failed = 0;
for (const [name, check] of Object.entries(CHECKS)) {
  const started = performance.now();
  const complaint = check();
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  stdout.write(`${complaint === '' ? 'ok  ' : 'FAIL'} ${name}  ${seconds} s\n`);
  if (complaint !== '') stdout.write(`${complaint}\n`);
  failed += complaint === '' ? 0 : 1;
}
exit(failed > 0 ? 1 : 0);
