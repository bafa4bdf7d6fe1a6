/** Kubernetes Events: the same thing said again about the same object raises a count instead of making another. */
import type { Client } from './client.ts';
import { isNotFound } from './errors.ts';
import { EVENTS, type KubeObject } from './resources.ts';

export interface EventText {
  type: 'Normal' | 'Warning';
  /** One word. */
  reason: string;
  message: string;
}

export interface Recorder {
  /** Never throws and never waits: an event that cannot be written is dropped. */
  record(about: KubeObject & { apiVersion: string; kind: string }, event: EventText): void;
  /** Resolves when what was recorded so far is written or dropped. */
  flush(): Promise<void>;
}

/** Events remembered for aggregation. */
const MEMORY = 4096;
/** Events that may wait to be written; more are dropped, since the API server is away or overloaded. */
const BACKLOG = 1000;
const MESSAGE_LENGTH = 1024;

export function createRecorder(client: Client, component: string, onError: (error: unknown) => void): Recorder {
  const known = new Map<string, { name: string; namespace: string; count: number }>();
  let last: Promise<void> = Promise.resolve();
  let waiting = 0;

  async function write(about: KubeObject & { apiVersion: string; kind: string }, event: EventText): Promise<void> {
    const { namespace = 'default', name = '', uid } = about.metadata ?? {};
    const now = new Date().toISOString();
    const identity = [uid, event.type, event.reason, event.message].join('\0');
    const earlier = known.get(identity);
    if (earlier) {
      known.delete(identity); // to the end: the least recent is forgotten first
      known.set(identity, earlier);
      earlier.count += 1;
      try {
        await client.patch(EVENTS, earlier.namespace, earlier.name, { count: earlier.count, lastTimestamp: now });
        return;
      } catch (error) {
        if (!isNotFound(error)) throw error; // events expire; then a new one is made
      }
    }
    const eventName = `${name}.${process.hrtime.bigint().toString(16)}`;
    await client.create(EVENTS, {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: eventName, namespace },
      involvedObject: { apiVersion: about.apiVersion, kind: about.kind, name, namespace, uid },
      type: event.type,
      reason: event.reason,
      message: event.message.slice(0, MESSAGE_LENGTH),
      source: { component },
      reportingComponent: component,
      count: 1,
      firstTimestamp: now,
      lastTimestamp: now,
    } as KubeObject);
    known.set(identity, { name: eventName, namespace, count: 1 });
    if (known.size > MEMORY) known.delete(known.keys().next().value!);
  }

  return {
    record(about, event) {
      if (waiting >= BACKLOG) return;
      waiting += 1;
      last = last
        .then(() => write(about, event))
        .catch(onError)
        .finally(() => {
          waiting -= 1;
        });
    },
    flush: () => last,
  };
}
