/** What a schedule does to the operator, and when: at writes, and for how long. */
import { setTimeout as delay } from 'node:timers/promises';
import { randomOf } from '../envtest/kube-proxy.ts';
import { type RecordingProxy, type Rules, UNDISTURBED } from './proxy.ts';
import { type Schedule, VARIANTS } from './schedule.ts';
import { TOLD } from './timeline.ts';

export interface Hands {
  proxy: RecordingProxy;
  /** SIGKILL; nothing of the operator gets through afterwards. */
  kill(): Promise<void>;
  start(): void;
  /** Resolves when all work that can end while the operator is away has ended. */
  leaveAlone(): Promise<void>;
  /** The newest resourceVersion that was seen. */
  newestVersion(): string;
}

export interface Fault {
  /** In words, as `the watch of pods stands still for 2.1 s from write 3 on`. */
  what: string;
  rules: Rules;
  happened(): boolean;
  /** Resolves when the operator is undisturbed again. */
  over(): Promise<void>;
}

/** Seconds that what is stale stays so: a few reconciles on it come about. */
const STALE = { least: 1, most: 4 };

export function disturb({ mode, n }: Schedule, hands: Hands): Fault {
  const random = randomOf(n);
  const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)];
  switch (mode) {
    case 'before':
    case 'after':
      return killAt(n, mode, false, hands);
    case 'before-late':
      return killAt(n, 'before', true, hands);
    case 'after-late':
      return killAt(n, 'after', true, hands);
    default: {
      const at = Math.floor(n / VARIANTS);
      const seconds = STALE.least + random() * (STALE.most - STALE.least);
      const plural = pick(TOLD).plural;
      if (mode === 'freeze') return freeze(at, plural, seconds);
      if (mode === 'gap') return gap(at, plural, seconds, hands);
      const back = 1 + Math.floor(random() * 4);
      return travel(at, random() < 0.5 ? undefined : plural, back, seconds, hands);
    }
  }
}

function killAt(n: number, moment: 'before' | 'after', late: boolean, hands: Hands): Fault {
  let restarting: Promise<void> | undefined;
  const at = async (write: { n: number }) => {
    if (write.n !== n) return 'pass';
    await hands.kill();
    restarting = (late ? hands.leaveAlone() : Promise.resolve()).then(hands.start);
    return 'lost';
  };
  return {
    what: `killed ${moment} write ${n}${late ? ', and away for long' : ''}`,
    rules: { ...UNDISTURBED, [moment]: at },
    happened: () => restarting !== undefined,
    over: async () => restarting,
  };
}

function freeze(at: number, plural: string, seconds: number): Fault {
  let thaw: Promise<void> | undefined;
  return {
    what: `the watch of ${plural} stands still for ${seconds.toFixed(1)} s from write ${at} on`,
    rules: {
      ...UNDISTURBED,
      before: async (write) => {
        if (write.n === at) thaw = delay(seconds * 1000);
        return 'pass';
      },
      flowing: async (of) => (of === plural ? thaw : undefined),
    },
    happened: () => thaw !== undefined,
    over: async () => thaw,
  };
}

function gap(at: number, plural: string, seconds: number, { proxy }: Hands): Fault {
  let reading: 'pass' | 'refuse' | 'gone' = 'pass';
  let closed: Promise<void> | undefined;
  return {
    what: `${plural} are not heard of for ${seconds.toFixed(1)} s from write ${at} on`,
    rules: {
      ...UNDISTURBED,
      before: async (write) => {
        if (write.n !== at) return 'pass';
        reading = 'refuse';
        proxy.cut(plural);
        closed = delay(seconds * 1000).then(() => {
          reading = 'gone';
        });
        return 'pass';
      },
      reading: (of, isWatch) => {
        if (of !== plural) return 'pass';
        if (reading !== 'gone') return reading;
        if (!isWatch) return 'pass';
        reading = 'pass';
        return 'gone';
      },
    },
    happened: () => closed !== undefined,
    over: async () => closed,
  };
}

/** @param plural the resource that is old; undefined: all of them */
function travel(at: number, plural: string | undefined, back: number, seconds: number, hands: Hands): Fault {
  /** The newest version as each write was asked for. */
  const versions: string[] = [];
  let past: string | undefined;
  let present: Promise<void> | undefined;
  const isOld = (of: string) => past !== undefined && (plural === undefined || of === plural);
  return {
    what: `killed after write ${at}; ${plural ?? 'everything'} is ${back} writes old for ${(seconds + 2).toFixed(1)} s`,
    rules: {
      ...UNDISTURBED,
      before: async (write) => {
        versions[write.n] = hands.newestVersion();
        return 'pass';
      },
      after: async (write) => {
        if (write.n !== at) return 'pass';
        await hands.kill();
        past = versions[Math.max(1, at - back)];
        hands.start();
        present = delay((seconds + 2) * 1000).then(() => {
          past = undefined;
        });
        return 'lost';
      },
      listedAt: (of) => (isOld(of) ? past : undefined),
      flowing: async (of) => (isOld(of) ? present : undefined),
    },
    happened: () => present !== undefined,
    over: async () => present,
  };
}
