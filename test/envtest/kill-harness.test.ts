// timeout: 300
// Some of the schedules of `npm run faults`, which has them all.
import { stderr } from 'node:process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { progressOn } from '../cluster/progress.ts';
import { type Arena, openArena } from '../faults/arena.ts';
import { emptyCampaign, killSchedules, runSchedules, staleSchedules, summaryOf } from '../faults/campaign.ts';
import type { Schedule } from '../faults/schedule.ts';
import { randomOf } from './kube-proxy.ts';

const it = suite('an operator that is disturbed');

const SEED = 1;
let arena: Arena;
it.before(async () => {
  arena = await openArena();
});
it.after(async () => {
  await arena[Symbol.asyncDispose]();
});

/** Some of the list, always the same. */
function some(list: Schedule[], count: number): Schedule[] {
  const random = randomOf(SEED);
  const rest = [...list];
  return Array.from({ length: Math.min(count, list.length) }, () =>
    rest.splice(Math.floor(random() * rest.length), 1),
  ).flat();
}

async function holds(
  scenarios: string[],
  choose: (scenario: string, writes: number) => Schedule[],
  least: number,
): Promise<void> {
  const campaign = emptyCampaign();
  await runSchedules(campaign, { arena, progress: progressOn(stderr), width: 2 }, scenarios, choose);
  assert.is(campaign.diverged.length, 0, summaryOf(campaign));
  assert.ok(campaign.run >= least, summaryOf(campaign));
}

it('comes to the same end, killed before and after writes of a dataset’s run', async () => {
  await holds(['dataset'], (scenario, writes) => some(killSchedules(scenario, writes), 6), 6);
});

it('comes to the same end on stale caches and with missed events', async () => {
  await holds(['failure-trainingjob'], staleSchedules(SEED, 6), 4);
});

it('takes no result for lost whose pod it has not heard of yet', async () => {
  // Pods are not heard of while the Job ends, with an open watch and with one that comes back late.
  await holds(
    ['dataset'],
    (scenario) => [
      { scenario, mode: 'freeze', n: 981051 },
      { scenario, mode: 'gap', n: 968378 },
    ],
    2,
  );
});

it.run();
