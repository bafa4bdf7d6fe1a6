/**
 * All that ever was of the objects in the namespaces of the schedules: every version of each, told by watches of our own that
 * go past the proxies. Versions of all resources are of one count (etcd's revision), so they have one order.
 */
import { EventEmitter } from 'node:events';
import { RESOURCES } from '../../operator/api/object.ts';
import type { Client } from '../../operator/kube/client.ts';
import {
  compareVersions,
  DEPLOYMENTS,
  JOBS,
  type KubeObject,
  keyOf,
  PODS,
  type Resource,
} from '../../operator/kube/resources.ts';

export const TOLD = [...Object.values(RESOURCES), JOBS, DEPLOYMENTS, PODS] as const satisfies readonly Resource[];

export interface Moment {
  type: 'ADDED' | 'MODIFIED' | 'DELETED';
  kind: string;
  version: string;
  object: KubeObject;
}

/** One namespace. */
export interface Chronicle {
  /** In the order in which they were told; `inOrder` sorts. */
  moments: Moment[];
  /** The newest version of what is there. */
  find<T extends KubeObject>(kind: string, name: string): T | undefined;
  all<T extends KubeObject>(kind: string): T[];
  /** Resolves when the condition holds; it is looked at again at each change. Rejects when the time is over. */
  until(holds: () => boolean, what: () => string, seconds: number): Promise<void>;
  /** Looks at the conditions of `until` again: something changed that is no object. */
  changed(): void;
}

export interface Timeline {
  of(namespace: string): Chronicle;
  forget(namespace: string): void;
  /** Called for each moment. */
  onMoment: (moment: Moment) => void;
  stop(): Promise<void>;
}

export const inOrder = (moments: readonly Moment[]) =>
  moments.toSorted((a, b) => compareVersions(a.version, b.version));

function createChronicle(): Chronicle & { tell(moment: Moment): void } {
  const present = new Map<string, KubeObject>();
  const changes = new EventEmitter().setMaxListeners(0);
  const moments: Moment[] = [];
  return {
    moments,
    tell(moment) {
      moments.push(moment);
      const key = `${moment.kind}/${moment.object.metadata?.name}`;
      if (moment.type === 'DELETED') present.delete(key);
      else present.set(key, moment.object);
      changes.emit('change');
    },
    find: <T extends KubeObject>(kind: string, name: string) => present.get(`${kind}/${name}`) as T | undefined,
    all: <T extends KubeObject>(kind: string) =>
      [...present].filter(([key]) => key.startsWith(`${kind}/`)).map(([, object]) => object as T),
    until(holds, what, seconds) {
      return new Promise((resolve, reject) => {
        const done = () => {
          clearTimeout(timer);
          changes.off('change', look);
        };
        const timer = setTimeout(() => {
          done();
          reject(new Error(`not within ${seconds} s: ${what()}`));
        }, seconds * 1000);
        const look = () => {
          if (!holds()) return;
          done();
          resolve();
        };
        changes.on('change', look);
        look();
      });
    },
    changed: () => changes.emit('change'),
  };
}

/** Begins to watch all namespaces; what is there before is told as added. */
export async function openTimeline(client: Client): Promise<Timeline> {
  const chronicles = new Map<string, ReturnType<typeof createChronicle>>();
  const stopping = new AbortController();
  const chronicle = (namespace: string) => {
    const found = chronicles.get(namespace) ?? createChronicle();
    chronicles.set(namespace, found);
    return found;
  };

  async function follow(resource: Resource, from: string): Promise<void> {
    let position = from;
    while (!stopping.signal.aborted) {
      try {
        for await (const { type, object } of client.watch<KubeObject>(resource, {}, position, stopping.signal, 3600)) {
          if (type === 'ERROR') throw new Error(`watch of ${resource.plural}: ${JSON.stringify(object)}`);
          position = object.metadata?.resourceVersion ?? position;
          if (type === 'BOOKMARK') continue;
          delete object.metadata?.managedFields;
          const moment: Moment = { type, kind: resource.kind, version: position, object };
          const namespace = keyOf(object).split('/')[0];
          chronicle(namespace).tell(moment);
          timeline.onMoment(moment);
        }
      } catch (error) {
        if (!stopping.signal.aborted) throw error;
      }
    }
  }

  const timeline: Timeline = {
    of: chronicle,
    forget: (namespace) => void chronicles.delete(namespace),
    onMoment: () => {},
    async stop() {
      stopping.abort();
      await Promise.all(following);
    },
  };
  const following: Promise<void>[] = [];
  for (const resource of TOLD) {
    const { metadata } = await client.list(resource, {}, { limit: 1 });
    following.push(follow(resource, metadata.resourceVersion));
  }
  return timeline;
}
