/** Many schedules after another, or some at a time: which there are, and what came of them. */
import type { Progress } from '../cluster/progress.ts';
import { randomOf } from '../envtest/kube-proxy.ts';
import { type Arena, divergences, type Outcome } from './arena.ts';
import { formatSchedule, MODES, type Mode, type Schedule, VARIANTS } from './schedule.ts';

export interface CampaignOptions {
  arena: Arena;
  progress: Progress;
  /** Schedules at a time. */
  width: number;
}

export interface Campaign {
  started: number;
  /** Schedules whose disturbance came about, and those whose scenario was over before. */
  run: number;
  missed: number;
  /** Writes that the operator was killed at. */
  killedAt: Set<string>;
  diverged: { schedule: Schedule; found: string[]; log: string }[];
}

export const emptyCampaign = (): Campaign => ({
  started: performance.now(),
  run: 0,
  missed: 0,
  killedAt: new Set(),
  diverged: [],
});

/** The counts, and how to have each divergence again. */
export function summaryOf({ started, run, missed, killedAt, diverged }: Campaign): string {
  const seconds = Math.round((performance.now() - started) / 1000);
  const counts = [
    `${run} schedules run in ${seconds} s`,
    `killed at ${killedAt.size} writes`,
    `${missed} over before their point`,
    `${diverged.length} diverged`,
  ];
  return [counts.join(', '), ...diverged.map(({ schedule }) => `  --schedule ${formatSchedule(schedule)}`)].join('\n');
}

const modesOf = (form: 'kill' | 'stale') => (Object.keys(MODES) as Mode[]).filter((mode) => MODES[mode].form === form);

/** Each mode at each write. */
export function killSchedules(scenario: string, writes: number): Schedule[] {
  return Array.from({ length: writes }, (_, i) => i + 1).flatMap((n) =>
    modesOf('kill').map((mode) => ({ scenario, mode, n })),
  );
}

/** So many for each scenario, by a seed. */
export const staleSchedules =
  (seed: number, count: number) =>
  (scenario: string, writes: number): Schedule[] => {
    const random = randomOf(seed);
    return Array.from({ length: count }, (_, i) => {
      const modes = modesOf('stale');
      const n = VARIANTS * (1 + Math.floor(random() * writes)) + Math.floor(random() * VARIANTS);
      return { scenario, mode: modes[i % modes.length], n };
    });
  };

/** Lines of a divergence that are shown. */
const SHOWN = 12;
/** Characters of the operator's log that are shown when a scenario fails by itself. */
const LOG_SHOWN = 4000;

/** Runs each scenario undisturbed, then the schedules that `choose` gives for it, knowing how many writes there are. */
export async function runSchedules(
  campaign: Campaign,
  { arena, progress, width }: CampaignOptions,
  scenarios: readonly string[],
  choose: (scenario: string, writes: number) => Schedule[],
): Promise<void> {
  const queue: { schedule: Schedule; expected: Outcome }[] = [];
  let planned = 0;

  async function work(): Promise<void> {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const { schedule, expected } = next;
      const outcome = await arena.run(schedule.scenario, next);
      const name = formatSchedule(schedule);
      if (outcome.disturbed) {
        campaign.run += 1;
        if (MODES[schedule.mode].form === 'kill') campaign.killedAt.add(`${schedule.scenario}:${schedule.n}`);
      } else campaign.missed += 1;
      const found = divergences(expected, outcome);
      if (found.length > 0) {
        campaign.diverged.push({ schedule, found, log: outcome.log });
        const write = MODES[schedule.mode].form === 'kill' ? outcome.writes[schedule.n - 1]?.what : undefined;
        progress.say(`DIVERGED --schedule ${name}`);
        progress.say(`  ${outcome.disturbed}${write ? ` (${write})` : ''}`);
        for (const line of found.slice(0, SHOWN)) progress.say(`  ${line}`);
        if (found.length > SHOWN) progress.say(`  and ${found.length - SHOWN} more`);
      }
      const ended = campaign.run + campaign.missed;
      progress.update(
        `${ended} of ${planned} schedules, ${campaign.diverged.length} diverged; ${name}`,
        ended / planned,
      );
    }
  }

  for (const scenario of scenarios) {
    progress.update(`${scenario}, undisturbed`, planned === 0 ? 0 : (campaign.run + campaign.missed) / planned);
    const expected = await arena.run(scenario);
    if (expected.wrong.length > 0) {
      throw new Error(`${scenario}, undisturbed: ${expected.wrong.join('; ')}\n${expected.log.slice(-LOG_SHOWN)}`);
    }
    const schedules = choose(scenario, expected.writes.length).filter((schedule) => schedule.scenario === scenario);
    progress.say(`${scenario}: ${expected.writes.length} writes, ${schedules.length} schedules`);
    planned += schedules.length;
    queue.push(...schedules.map((schedule) => ({ schedule, expected })));
    await Promise.all(Array.from({ length: width }, work));
  }
}
