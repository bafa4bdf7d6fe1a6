/**
 * One training step of ResNet-18 (CIFAR stem, 11.17 M parameters), batch 64 of 32×32 RGB, float32, SGD with Nesterov momentum and
 * weight decay, on one core: ours against PyTorch's. Both run pinned to the same core, by turns, in processes of their own; the
 * best step of each counts, since whatever else the machine does only ever makes a step slower.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { availableParallelism, cpus, homedir, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const TORCH = '2.15.0';
const BATCH = 64;
const ROUNDS = 3;
/** Timed steps of one run, after one that is not. */
const STEPS = 4;
/** Share of PyTorch's images/s that is to be reached. */
const TARGET = 0.95;

interface Run {
  version: string;
  /** Of each timed step. */
  milliseconds: number[];
  /** Processor time of each timed step: what it would take on a core of its own, caches aside. */
  cpuMilliseconds: number[];
  peakMegabytes: number;
}

/** Prints the table; true if the target is met. */
export async function benchStep(): Promise<boolean> {
  const python = torchPython();
  const core = availableParallelism() - 1;
  const here = (file: string) => fileURLToPath(new URL(file, import.meta.url));
  const before = loadavg()[0]!;
  const contenders = [
    { name: 'Fovea', command: [process.execPath, here('./step-engine.ts')], runs: [] as Run[] },
    { name: 'PyTorch', command: [python, here('./step.py')], runs: [] as Run[] },
  ];
  for (let round = 1; round <= ROUNDS; round++) {
    for (const { name, command, runs } of contenders) {
      const run = runPinned(core, [...command, String(BATCH), String(STEPS)]);
      runs.push(run);
      console.error(
        `round ${round}/${ROUNDS}  ${name.padEnd(8)} ${run.milliseconds.map((ms) => ms.toFixed(0)).join(' ')} ms`,
      );
    }
  }

  const rows = contenders.map(({ name, runs }) => {
    const steps = runs.flatMap((r) => r.milliseconds).sort((a, b) => a - b);
    const cpu = Math.min(...runs.flatMap((r) => r.cpuMilliseconds));
    return {
      name: `${name} (${runs[0]!.version})`,
      best: (1000 * BATCH) / steps[0]!,
      median: (1000 * BATCH) / steps[Math.floor(steps.length / 2)]!,
      perCpuSecond: (1000 * BATCH) / cpu,
      memory: Math.max(...runs.map((r) => r.peakMegabytes)),
    };
  });
  const ratio = rows[0]!.best / rows[1]!.best;
  console.log('| | best images/s | median images/s | best images per CPU second | peak RSS |\n|---|---|---|---|---|');
  for (const { name, best, median, perCpuSecond, memory } of rows) {
    console.log(
      `| ${name} | ${best.toFixed(1)} | ${median.toFixed(1)} | ${perCpuSecond.toFixed(1)} | ${(memory / 1000).toFixed(2)} GB |`,
    );
  }
  const byCpu = rows[0]!.perCpuSecond / rows[1]!.perCpuSecond;
  console.log(
    `\nratio of the best: ${ratio.toFixed(3)}; by processor time ${byCpu.toFixed(3)} (target ${TARGET}: ${ratio >= TARGET ? 'met' : 'missed'})`,
  );
  console.log(
    `conditions: ${cpus()[0]!.model}, core ${core} of ${cpus().length}, 1 thread, ResNet-18, batch ${BATCH}, f32, ` +
      `${ROUNDS} interleaved rounds of ${STEPS} steps; load before ${before.toFixed(2)}, after ${loadavg()[0]!.toFixed(2)}; Node ${process.version}`,
  );
  return ratio >= TARGET;
}

function runPinned(core: number, command: string[]): Run {
  const { status, stdout, error } = spawnSync('taskset', ['--cpu-list', String(core), ...command], {
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    env: { ...process.env, OMP_NUM_THREADS: '1' },
  });
  if (error || status !== 0) throw new Error(`${command.join(' ')} ended with ${error?.message ?? status}`);
  return JSON.parse(stdout);
}

/** The Python of an environment with PyTorch, made if it is not in the cache: its wheel is the CUDA build, 5 GB on disk with its packages. */
function torchPython(): string {
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'fovea');
  const folder = join(cache, `torch-${TORCH}`);
  const python = join(folder, 'bin/python');
  // The version is asked for without importing the whole; pip writes its record last.
  const check = `import importlib.metadata as m; assert m.version('torch') == '${TORCH}'`;
  if (spawnSync(python, ['-c', check], { stdio: 'ignore' }).status === 0) return python;
  console.error(`installing PyTorch ${TORCH} to ${folder}: about 3 GB to download, once`);
  mkdirSync(cache, { recursive: true });
  const steps = [
    ['python3', '-m', 'venv', '--clear', folder],
    [python, '-m', 'pip', 'install', '--disable-pip-version-check', '--no-cache-dir', `torch==${TORCH}`],
  ];
  for (const step of steps) {
    const { status, error } = spawnSync('nice', step, { stdio: ['ignore', 2, 2] });
    if (error || status !== 0) throw new Error(`${step.join(' ')} ended with ${error?.message ?? status}`);
  }
  return python;
}
