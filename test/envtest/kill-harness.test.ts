// timeout: 400
// Some of the schedules of `npm run faults`, which has them all.
import { stderr } from 'node:process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { progressOn } from '../cluster/progress.ts';
import { type Arena, openArena } from '../faults/arena.ts';
import { emptyCampaign, killSchedules, runSchedules, summaryOf } from '../faults/campaign.ts';
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
  return Array.from({ length: count }, () => rest.splice(Math.floor(random() * rest.length), 1)).flat();
}

/**
 * None may diverge. A run may be over before the write it is to be disturbed at: how many there are depends on how many states
 * the operator sees of what changes fast.
 */
async function holds(scenarios: string[], choose: (scenario: string, writes: number) => Schedule[]): Promise<void> {
  const campaign = emptyCampaign();
  await runSchedules(campaign, { arena, progress: progressOn(stderr), width: 2 }, scenarios, choose);
  const found = campaign.diverged.map((diverged) => diverged.found.join('\n')).join('\n');
  assert.is(campaign.diverged.length, 0, `${summaryOf(campaign)}\n${found}`);
  assert.ok(campaign.run > campaign.missed, summaryOf(campaign));
}

it('comes to the same end, killed before and after its writes', async () => {
  await holds(['dataset', 'suspension-trainingjob', 'change-service'], (scenario, writes) =>
    some(killSchedules(scenario, Math.ceil(writes * 0.7)), 5),
  );
});

it('takes no result for lost whose pod it has not heard of yet', async () => {
  // Pods are not heard of while the Job ends, whichever write it is that the pod's running is said by.
  await holds(['dataset'], (scenario) => [3156, 4044, 5056].map((n) => ({ scenario, mode: 'freeze', n })));
});

it.run();
