/**
 * The test runner. `node test/run.ts [tier ...] [path filter ...]` runs each test file in a process of its own, because
 * uvu exits 0 on a file without tests, waits for ever on an open handle and knows no timeout.
 *
 * Tiers: `unit` (`*.test.ts` beside their subject) and the folders `test/<tier>/`. Exit code 1 if any test failed.
 */
import { spawn } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { argv, exit, stdout } from 'node:process';
import { kubeBinary, kubectlBinaries, processNodeBinary } from './cluster/build.ts';

const TIERS = ['unit', 'contract', 'envtest', 'cluster'] as const;
type Tier = (typeof TIERS)[number];

/** Seconds a file may take; a file asks for more with `// timeout: N` in its first lines. */
const TIMEOUT_SECONDS: Record<Tier, number> = { unit: 60, contract: 300, envtest: 300, cluster: 300 };

/** What a tier needs built first, so that no test's time goes into it: minutes on a new machine, nothing afterwards. */
const BUILDS: Record<Tier, (() => Promise<string>)[]> = {
  unit: [],
  contract: [],
  envtest: [kubeBinary],
  cluster: [kubeBinary, processNodeBinary, kubectlBinaries],
};

interface Outcome {
  file: string;
  passed: number;
  failed: number;
  skipped: string | undefined;
  output: string;
  seconds: number;
}

function filesOf(tier: Tier): string[] {
  const found =
    tier === 'unit'
      ? globSync('{operator,trainer-image,test,examples}/**/*.test.ts')
      : globSync(`test/${tier}/**/*.test.ts`);
  const higher = TIERS.filter((t) => t !== 'unit').map((t) => `test/${t}/`);
  return found.filter((f) => tier !== 'unit' || !higher.some((h) => f.startsWith(h))).sort();
}

function runFile(file: string, tier: Tier): Promise<Outcome> {
  const head = readFileSync(file, 'utf8').slice(0, 400);
  const limit = Number(/^\/\/ timeout: (\d+)/m.exec(head)?.[1] ?? TIMEOUT_SECONDS[tier]);
  const started = performance.now();
  return new Promise((resolve) => {
    // A process group of its own, so that what a hanging test started dies with it.
    const child = spawn(process.execPath, ['--enable-source-maps', file], {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, FORCE_COLOR: '0' },
    });
    let output = '';
    let timedOut = false;
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    const timer = setTimeout(() => {
      timedOut = true;
      if (child.pid) process.kill(-child.pid, 'SIGKILL');
    }, limit * 1000);
    child.on('close', (code) => {
      clearTimeout(timer);
      const total = Number(/^ {2}Total: +(\d+)/m.exec(output)?.[1] ?? 0);
      const passed = Number(/^ {2}Passed: +(\d+)/m.exec(output)?.[1] ?? 0);
      const skipped = /^SKIP: (.+)$/m.exec(output)?.[1];
      let failed = total - passed;
      if (timedOut) {
        failed += 1;
        output += `\n${file} did not end within ${limit} s and was killed\n`;
      } else if (code !== 0 && failed === 0) {
        failed = 1;
        output += `\n${file} exited with ${code}\n`;
      } else if (total === 0 && !skipped) {
        failed = 1;
        output += `\n${file} ran no test\n`;
      }
      resolve({ file, passed, failed, skipped, output, seconds: (performance.now() - started) / 1000 });
    });
  });
}

/** Runs `files`, at most `width` at a time, and prints each as it ends. */
async function runAll(files: string[], tier: Tier, width: number): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const queue = [...files];
  const worker = async () => {
    for (let file = queue.shift(); file; file = queue.shift()) {
      const outcome = await runFile(file, tier);
      outcomes.push(outcome);
      const mark = outcome.failed > 0 ? 'FAIL' : outcome.skipped ? 'skip' : 'ok  ';
      const note = outcome.skipped ? `  ${outcome.skipped}` : '';
      stdout.write(`${mark} ${file}  ${outcome.passed} passed  ${outcome.seconds.toFixed(1)} s${note}\n`);
      if (outcome.failed > 0) stdout.write(`${outcome.output.trimEnd()}\n`);
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  return outcomes;
}

const words = argv.slice(2);
const tiers = TIERS.filter((tier) => words.includes(tier));
const filters = words.filter((word) => !TIERS.includes(word as Tier));
const outcomes: Outcome[] = [];
for (const tier of tiers.length > 0 ? tiers : TIERS) {
  const files = filesOf(tier).filter((file) => filters.length === 0 || filters.some((f) => file.includes(f)));
  if (files.length === 0) continue;
  stdout.write(`\n${tier}: ${files.length} files\n`);
  for (const build of BUILDS[tier]) await build();
  outcomes.push(...(await runAll(files, tier, tier === 'unit' ? availableParallelism() : 1)));
}
const sum = (of: (outcome: Outcome) => number) => outcomes.reduce((total, outcome) => total + of(outcome), 0);
const skipped = sum((outcome) => (outcome.skipped ? 1 : 0));
const failed = outcomes.length === 0 ? 1 : sum((outcome) => outcome.failed);
if (outcomes.length === 0) stdout.write(`no test file matches ${words.join(' ')}\n`);
stdout.write(`\n${sum((o) => o.passed)} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`);
exit(failed > 0 ? 1 : 0);
