/**
 * What training together costs: two ranks of one core each that sum their gradients in every step, against two that each train alone,
 * at the same time and on the same two cores, so that they share memory and caches alike. By turns; the best round of each counts.
 */
import { spawn } from 'node:child_process';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

/** Share of the images/s of ranks that do not wait for each other that is to be reached. */
const TARGET = 0.92;
const ROUNDS = 3;
const CASES = [
  { model: 'ResNet18', batch: 64, steps: 6 },
  { model: 'ResNet20', batch: 128, steps: 20 },
];

/** Prints the table; true if the target is met. */
export async function benchScale(): Promise<boolean> {
  if (availableParallelism() < 2) throw new Error('two cores are needed, one for each rank');
  const before = loadavg()[0]!;
  const rows: string[] = [];
  let met = true;
  for (const { model, batch, steps } of CASES) {
    const rates = { alone: [] as number[], together: [] as number[] };
    for (let round = 1; round <= ROUNDS; round++) {
      for (const how of ['alone', 'together'] as const) {
        const network = `127.73.${round}`;
        const rate = await measure({ model, batch, steps, world: how === 'alone' ? 1 : 2, network });
        rates[how].push(rate);
        console.error(`${model}  round ${round}/${ROUNDS}  ${how.padEnd(8)} ${rate.toFixed(1)} images/s`);
      }
    }
    const [alone, together] = [Math.max(...rates.alone), Math.max(...rates.together)];
    const ratio = together / alone;
    met &&= ratio >= TARGET;
    rows.push(
      `| ${model}, batch ${batch} a rank | ${alone.toFixed(1)} | ${together.toFixed(1)} | ${ratio.toFixed(3)} (${ratio >= TARGET ? 'met' : 'missed'}) |`,
    );
  }
  console.log('| | two apart, images/s | two together, images/s | ratio |\n|---|---|---|---|');
  for (const row of rows) console.log(row);
  console.log(
    `\ntarget ${TARGET}; conditions: ${cpus()[0]!.model}, cores 0 and 1 of ${cpus().length}, 1 thread a rank, 32×32 RGB, f32, best of ` +
      `${ROUNDS} rounds; load before ${before.toFixed(2)}, after ${loadavg()[0]!.toFixed(2)}; Node ${process.version}`,
  );
  return met;
}

/** Images/s of both ranks over the time in which both were at their timed steps. */
async function measure(run: {
  model: string;
  batch: number;
  steps: number;
  world: number;
  network: string;
}): Promise<number> {
  const { model, batch, steps, world, network } = run;
  const program = fileURLToPath(new URL('./scale-rank.ts', import.meta.url));
  const ranks = [0, 1].map(async (core) => {
    const words = [String(world === 1 ? 0 : core), String(world), model, String(batch), String(steps), network];
    const child = spawn('taskset', ['--cpu-list', String(core), process.execPath, program, ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, OMP_NUM_THREADS: '1' },
    });
    const [out, problems, code] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      new Promise((resolve, reject) => child.on('close', resolve).on('error', reject)),
    ]);
    if (code !== 0) throw new Error(`rank ${core} ended with ${code}:\n${problems}`);
    return JSON.parse(out) as number[];
  });
  const times = await Promise.all(ranks);
  const start = Math.max(...times.map((t) => t[0]!));
  const end = Math.min(...times.map((t) => t.at(-1)!));
  // Of each rank the steps within that time, the first and last of them in part.
  const done = times.map((t) => stepsAt(t, end) - stepsAt(t, start));
  return (1000 * batch * (done[0]! + done[1]!)) / (end - start);
}

/** How many steps were done at a time, with the part of the one under way. */
function stepsAt(times: readonly number[], at: number): number {
  const next = times.findIndex((time) => time >= at);
  if (next <= 0) return next < 0 ? times.length - 1 : 0;
  return next - 1 + (at - times[next - 1]!) / (times[next]! - times[next - 1]!);
}
