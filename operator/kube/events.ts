/**
 * Kubernetes Events: the same thing said again about the same object raises a count instead of making another, also after a
 * restart, since an Event's name comes from what it says.
 */
import { createHash } from 'node:crypto';
import type { Client } from './client.ts';
import { isAlreadyExists, isNotFound } from './errors.ts';
import { EVENTS, type KubeObject } from './resources.ts';

export interface EventText {
  type: 'Normal' | 'Warning';
  /** One word. */
  reason: string;
  message: string;
}

type About = KubeObject & { apiVersion: string; kind: string };

export interface Recorder {
  /** Never throws and never waits: an event that cannot be written, or is one of too many, is dropped. */
  record(about: About, event: EventText): void;
  /** Resolves when what was recorded so far is written or dropped. */
  flush(): Promise<void>;
}

/** Texts, and objects, remembered. */
const MEMORY = 4096;
/** Events that may wait to be written; more are dropped, since the API server is away or overloaded. */
const BACKLOG = 1000;
/** Writes about one object: so many at once, and one more each so many ms. What is over that is only counted. */
const BURST = 25;
const REFILL = 60_000;
/** As the API server has it, in characters. */
const LONGEST_MESSAGE = 1024;

/** One text about one object. */
interface Told {
  event: KubeObject & { count: number; firstTimestamp: string; lastTimestamp: string };
  /** The server has it. */
  written: boolean;
  /** Waits to be written. */
  queued: boolean;
}

/** @param component who says it, as `kubectl describe` shows it under From */
export function createRecorder(client: Client, component: string, onError: (error: unknown) => void): Recorder {
  const told = new Map<string, Told>();
  const budgets = new Map<string, { writes: number; at: number }>();
  const backlog: Told[] = [];
  let writing: Promise<void> | undefined;

  function mayWrite(uid: string): boolean {
    const now = performance.now();
    const budget = budgets.get(uid) ?? { writes: BURST, at: now };
    const writes = Math.min(BURST, budget.writes + (now - budget.at) / REFILL);
    remember(budgets, uid, { writes: writes >= 1 ? writes - 1 : writes, at: now });
    return writes >= 1;
  }

  async function write(entry: Told): Promise<void> {
    const { event } = entry;
    const { namespace, name = '' } = event.metadata ?? {};
    const again = () =>
      client.patch(EVENTS, namespace, name, { count: event.count, lastTimestamp: event.lastTimestamp });
    if (entry.written) {
      try {
        await again();
        return;
      } catch (error) {
        if (!isNotFound(error)) throw error; // events expire; then it is made anew
      }
    }
    try {
      await client.create(EVENTS, event);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      // Said before this process began.
      const earlier = await client.get<Told['event']>(EVENTS, namespace, name);
      event.count += earlier.count ?? 1;
      entry.written = true;
      await again();
    }
    entry.written = true;
  }

  async function drain(): Promise<void> {
    for (let entry = backlog.shift(); entry; entry = backlog.shift()) {
      entry.queued = false;
      try {
        await write(entry);
      } catch (error) {
        onError(error);
      }
    }
    writing = undefined;
  }

  return {
    record(about, { type, reason, message }) {
      const { namespace = 'default', name = '', uid = '', resourceVersion } = about.metadata ?? {};
      const identity = createHash('sha256').update([uid, type, reason, message].join('\0')).digest('hex').slice(0, 16);
      const now = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
      const entry = told.get(identity) ?? {
        event: {
          apiVersion: 'v1',
          kind: 'Event',
          metadata: { name: `${name.slice(0, 200).replace(/\W+$/, '')}.${identity}`, namespace },
          involvedObject: { apiVersion: about.apiVersion, kind: about.kind, name, namespace, uid, resourceVersion },
          type,
          reason,
          message: message.length > LONGEST_MESSAGE ? `${message.slice(0, LONGEST_MESSAGE - 1)}…` : message,
          source: { component },
          reportingComponent: component,
          count: 0,
          firstTimestamp: now,
          lastTimestamp: now,
        } as Told['event'],
        written: false,
        queued: false,
      };
      remember(told, identity, entry);
      entry.event.count += 1;
      entry.event.lastTimestamp = now;
      if (entry.queued || backlog.length >= BACKLOG || !mayWrite(uid)) return;
      entry.queued = true;
      backlog.push(entry);
      writing ??= drain();
    },
    flush: async () => {
      await writing;
    },
  };
}

/** Sets the key as the latest; forgets the earliest if there are too many. */
function remember<V>(map: Map<string, V>, key: string, value: V): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > MEMORY) map.delete(map.keys().next().value!);
}
