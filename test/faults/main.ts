/**
 * `npm run faults -- [kill|stale|kube] [--seed N] [--schedules N] [--scenario name] [--schedule <scenario>:<mode>:<n>]`: the full
 * forms of what the tests run a part of. Ctrl-C ends them early, with the counts so far.
 *
 * - kill: the operator is killed before and after each of its writes, in each scenario
 * - stale: it is fed stale caches and missed events, at seeded points
 * - kube: caches and queues behind a faulty network, with so many storms (seeds from N on) of writes and faults
 */
import { exit, stderr } from 'node:process';
import { parseArgs } from 'node:util';
import { startControlPlane } from '../cluster/controlplane.ts';
import { progressOn } from '../cluster/progress.ts';
import { openArena } from './arena.ts';
import { emptyCampaign, killSchedules, runSchedules, staleSchedules, summaryOf } from './campaign.ts';
import { kubeStorm } from './kube.ts';
import { SCENARIOS } from './scenarios.ts';
import { MODES, parseSchedule, type Schedule } from './schedule.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seed: { type: 'string', default: '1' },
    schedules: { type: 'string', default: '60' },
    scenario: { type: 'string', multiple: true },
    schedule: { type: 'string', multiple: true },
    width: { type: 'string', default: '2' },
  },
});

function usage(message: string): never {
  console.error(`${message}\nusage: npm run faults -- [kill|stale|kube] [--seed N] [--schedules N] [--scenario name]`);
  console.error('       npm run faults -- --schedule <scenario>:<mode>:<n>');
  console.error(`scenarios: ${Object.keys(SCENARIOS).join(', ')}`);
  for (const [mode, { what }] of Object.entries(MODES)) console.error(`  ${mode.padEnd(12)} ${what}`);
  exit(2);
}

/** Steps of a storm. */
const STORM_STEPS = 1000;

/** One after the other, each on a server of its own; ends the process. */
async function runStorms(first: number, count: number): Promise<never> {
  let failed = 0;
  for (let seed = first; seed < first + count; seed++) {
    await using plane = await startControlPlane();
    try {
      console.log(JSON.stringify(await kubeStorm(plane, seed, STORM_STEPS)));
    } catch (error) {
      failed += 1;
      console.error(`${(error as Error).message}\nagain: npm run faults -- kube --seed ${seed} --schedules 1`);
    }
  }
  console.log(`${count} storms, ${failed} failed`);
  exit(failed > 0 ? 1 : 0);
}

const form = positionals[0] ?? 'kill';
if (form === 'kube') await runStorms(Number(values.seed), Number(values.schedules));
if (form !== 'kill' && form !== 'stale') usage(`there is no ${form}`);
const scenarios = values.scenario ?? Object.keys(SCENARIOS);
const unknown = scenarios.find((name) => !Object.hasOwn(SCENARIOS, name));
if (unknown) usage(`there is no scenario ${unknown}`);

let named: Schedule[] | undefined;
try {
  named = values.schedule?.map((text) => parseSchedule(text, Object.keys(SCENARIOS)));
} catch (error) {
  usage((error as Error).message);
}

const campaign = emptyCampaign();
// The control plane gets the signal too, so nothing can go on.
process.once('SIGINT', () => {
  console.log(`\n${summaryOf(campaign)}`);
  exit(130);
});

await using arena = await openArena();
const options = { arena, progress: progressOn(stderr), width: Number(values.width) };
const choose = named
  ? () => named
  : form === 'kill'
    ? killSchedules
    : staleSchedules(Number(values.seed), Number(values.schedules));
const affected = named ? [...new Set(named.map(({ scenario }) => scenario))] : scenarios;
await runSchedules(campaign, options, affected, choose);
console.log(summaryOf(campaign));
process.exitCode = campaign.diverged.length > 0 ? 1 : 0;
