/** A schedule names one disturbed run of a scenario, so that it can be had again: `<scenario>:<mode>:<n>`. Pure. */

/** How the operator is disturbed. */
export const MODES = {
  /** Killed when write n has left it, before the server hears of it; started again at once. */
  before: { form: 'kill', what: 'killed before write n reaches the server' },
  /** Killed when write n is carried out, before its answer arrives; started again at once. */
  after: { form: 'kill', what: 'killed after write n, before its answer arrives' },
  /** As `before`; started again only when all work that can end without it has ended. */
  'before-late': { form: 'kill', what: 'killed before write n, and away until the work that goes on without it ends' },
  /** As `after`; started again only when all work that can end without it has ended. */
  'after-late': { form: 'kill', what: 'killed after write n, and away until the work that goes on without it ends' },
  /** Watches of a resource stand still from some write on, for some time, while others go on. */
  freeze: { form: 'stale', what: 'the watch of one resource stands still, others go on' },
  /** A resource's watch breaks, comes back only later, and then with 410: what was between is never told. */
  gap: { form: 'stale', what: 'a resource is not heard of for a while, and the events meanwhile are lost' },
  /** Killed, and started again on lists as they were some writes ago, which then stand still for some time. */
  travel: { form: 'stale', what: 'killed, and started again on an older list' },
} as const satisfies Record<string, { form: 'kill' | 'stale'; what: string }>;
export type Mode = keyof typeof MODES;

export interface Schedule {
  scenario: string;
  mode: Mode;
  /** From 1. In the stale form the number of a write times `VARIANTS`, and which variant of the fault there. */
  n: number;
}

export const VARIANTS = 1000;

export const formatSchedule = ({ scenario, mode, n }: Schedule) => `${scenario}:${mode}:${n}`;

/** @throws Error saying what is wrong with it */
export function parseSchedule(text: string, scenarios: readonly string[]): Schedule {
  const [scenario = '', mode = '', number = '', ...rest] = text.split(':');
  const n = Number(number);
  if (rest.length > 0 || !Number.isInteger(n) || n < 1) {
    throw new Error(`--schedule ${text}: it has the form <scenario>:<mode>:<n>, n from 1, as line:before:3`);
  }
  if (!scenarios.includes(scenario)) {
    throw new Error(`--schedule ${text}: there is no scenario ${scenario}; there are ${scenarios.join(', ')}`);
  }
  if (!Object.hasOwn(MODES, mode)) {
    throw new Error(`--schedule ${text}: there is no mode ${mode}; there are ${Object.keys(MODES).join(', ')}`);
  }
  return { scenario, mode: mode as Mode, n };
}
