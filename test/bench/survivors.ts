/**
 * Many training jobs whose workers are killed at seeded random steps, their engine or their whole pod: what is said of survivors must
 * hold in every one of them. Small networks, so that most of the time goes into dying and coming back.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { openStore } from '../../trainer-image/store.ts';
import { disturbed, packSamples, STEPS, undisturbed } from '../survivors.ts';

const JOBS = 25;
const KILLS = 4;

/** Prints the table; true if every job ended with the bits of a calm run and no survivor lost its state. */
export async function benchSurvivors(): Promise<boolean> {
  const root = mkdtempSync(join(tmpdir(), 'survivors-'));
  const store = await openStore(join(root, 'store'));
  const place = { root, store, dataset: await packSamples(store) };
  const calm = new Map<string, string>();
  const seconds: number[] = [];
  let kept = 0;
  console.log(
    '| job | workers | kills (step: what of which worker, seconds until a step was done again) | rings | as a calm run |',
  );
  console.log('|---|---|---|---|---|');
  for (let job = 0; job < JOBS; job++) {
    const [workers, seed] = [2 + (job % 2), job];
    // Five seeds of training with two worlds each; where workers are killed differs in every job.
    const training = job % 5;
    const key = `${workers}-${training}`;
    if (!calm.has(key)) calm.set(key, await undisturbed(place, workers, training, '127.72.100'));
    const run = `killed-${job}`;
    const network = `127.72.${101 + job}`;
    const { digests, kills, generations, faults } = await disturbed(place, {
      run,
      workers,
      seed: training,
      killSeed: seed,
      kills: KILLS,
      network,
    });
    const same = digests === calm.get(key);
    if (same && faults.length === 0) kept++;
    seconds.push(...kills.map((kill) => kill.seconds));
    const words = kills.map((k) => `${k.step}: ${k.what} of ${k.index}, ${k.seconds.toFixed(1)}`).join('; ');
    console.log(
      `| ${job} | ${workers} | ${words} | ${generations} | ${same ? 'yes' : 'NO'}${faults.map((f) => `, ${f}`).join('')} |`,
    );
  }
  seconds.sort((a, b) => a - b);
  const at = (share: number) => seconds[Math.floor(share * (seconds.length - 1))]!.toFixed(1);
  console.log(
    `\n${kept} of ${JOBS} jobs, ${JOBS * KILLS} kills: no survivor restarted or went back, same bits as a calm run. ` +
      `Until a step was done again: median ${at(0.5)} s, longest ${at(1)} s`,
  );
  console.log(
    `conditions: ${cpus().length} × ${cpus()[0]!.model}, ResNet-20 on 8×8 pictures, ${STEPS} steps of 16, 1 thread a worker; Node ${process.version}`,
  );
  rmSync(root, { recursive: true, force: true });
  return kept === JOBS;
}
