/**
 * `npm run verify`: all that can be said of the code without running it, quickest first as far as one depends on another. A
 * line a check, each complaint below its line; exit code 1 if there is one.
 */
import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { env, execPath, exit, stdout } from 'node:process';
import { wrongImports } from './imports.ts';

const ROOT = path.dirname(import.meta.dirname);
const BIN = path.join(ROOT, 'node_modules/.bin');

/** Seconds for one check: far more than any takes, so that one that hangs is named. */
const TIMEOUT_SECONDS = 300;

/** What a check says: nothing (''), a complaint, or why it cannot be done here. */
type Verdict = string | { skipped: string };

/** Runs a program; its output is the complaint if it does not exit with 0. */
function program(name: string, ...args: string[]): Verdict {
  const { status, signal, output, error } = spawnSync(name, args, {
    cwd: ROOT,
    encoding: 'utf8',
    timeout: TIMEOUT_SECONDS * 1000,
    // Tools start under the project's own Node, also when npm did not start this.
    env: { ...env, PATH: `${BIN}:${env.PATH}`, FORCE_COLOR: '0', NO_COLOR: '1' },
  });
  if (error) return `${name} cannot be run: ${error.message}`;
  const said = output.filter(Boolean).join('').trim();
  return status === 0 ? '' : said || `${[name, ...args].join(' ')} ended with ${signal ?? `exit code ${status}`}`;
}

/** The project's own tools are found beside it, whatever PATH says. */
const tool = (name: string, ...args: string[]) => program(path.join(BIN, name), ...args);

function imports(): Verdict {
  const files = globSync('{operator,trainer-image,test,examples}/**/*.{ts,mjs}', { cwd: ROOT }).sort();
  return files.flatMap((file) => wrongImports(file, readFileSync(path.join(ROOT, file), 'utf8'))).join('\n');
}

/** gofmt lists what it would change and exits with 0. `go vet` is left to `go test`, since it first compiles all of Kubernetes. */
function goFormat(): Verdict {
  const {
    error,
    stdout: listed,
    stderr,
    status,
  } = spawnSync('gofmt', ['-l', 'test/cluster'], { cwd: ROOT, encoding: 'utf8' });
  if (error) return { skipped: 'there is no gofmt on the PATH' };
  if (status !== 0) return stderr.trim();
  return listed.trim().replace(/.+/g, '$& is not formatted: gofmt -w $&');
}

const CHECKS: Record<string, () => Verdict> = {
  'imports go one way': imports,
  'generated files are fresh': () => program(execPath, 'operator/api/generate.ts', '--check'),
  'Go is formatted': goFormat,
  'lint and format': () => tool('biome', 'ci', '--error-on-warnings', '--colors=off', '.'),
  types: () => tool('tsc', '--noEmit', '--pretty', 'false'),
  'nothing is unused': () => tool('knip', '--no-progress', '--no-config-hints'),
};

const started = performance.now();
const seconds = (since: number) => ((performance.now() - since) / 1000).toFixed(1);
let failed = 0;
for (const [name, check] of Object.entries(CHECKS)) {
  const begun = performance.now();
  const verdict = check();
  const skipped = typeof verdict === 'string' ? undefined : verdict.skipped;
  const complaint = typeof verdict === 'string' ? verdict : '';
  const mark = skipped ? 'skip' : complaint === '' ? 'ok  ' : 'FAIL';
  stdout.write(`${mark} ${name}  ${seconds(begun)} s${skipped ? `  ${skipped}` : ''}\n`);
  if (complaint !== '') stdout.write(`${complaint}\n`);
  failed += complaint === '' ? 0 : 1;
}
const total = Object.keys(CHECKS).length;
stdout.write(failed === 0 ? `verified in ${seconds(started)} s\n` : `${failed} of ${total} checks failed\n`);
exit(failed > 0 ? 1 : 0);
