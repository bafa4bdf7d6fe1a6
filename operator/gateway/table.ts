/** The routing table: follows services and pods as they are watched, and keeps one backend for each pod that takes requests. */
import { COMPONENTS } from '../manifests/labels.ts';
import { type Backend, type LiveRoute, openBackend } from './backends.ts';
import { route, type WatchedPod, type WatchedService } from './routes.ts';

const SERVICE_LABEL = COMPONENTS.inferenceservice.ownerLabel;

export interface RoutingTable {
  find(namespace: string, name: string): LiveRoute | undefined;
  /** A service was added or changed; undefined: it is gone. */
  setService(namespace: string, name: string, service: WatchedService | undefined): void;
  /** A pod was added or changed, or is `gone`. */
  setPod(pod: WatchedPod, gone?: boolean): void;
  /** Ends when every connection is closed; requests in flight end first. */
  close(): Promise<void>;
}

interface Entry {
  service?: WatchedService;
  /** By name: a pod of the same name with another uid replaces the old one. */
  pods: Map<string, WatchedPod>;
  backends: Map<string, Backend>;
  route?: LiveRoute;
}

export function routingTable(): RoutingTable {
  const entries = new Map<string, Entry>();
  const closing = new Set<Promise<void>>();

  function retire(backend: Backend): void {
    const closed = backend.pool.close().finally(() => closing.delete(closed));
    closing.add(closed);
  }

  function entryOf(key: string): Entry {
    const known = entries.get(key);
    if (known) return known;
    const entry: Entry = { pods: new Map(), backends: new Map() };
    entries.set(key, entry);
    return entry;
  }

  function rebuild(key: string, entry: Entry): void {
    const routed = entry.service && route(entry.service, entry.pods.values());
    const backends = new Map<string, Backend>();
    entry.route = routed && {
      ...routed,
      revisions: routed.revisions.map(({ name, weight, endpoints }) => ({
        name,
        weight,
        backends: endpoints.map((endpoint) => {
          const known = entry.backends.get(endpoint.uid);
          const backend = known?.origin === endpoint.origin ? known : openBackend(endpoint, name);
          backends.set(endpoint.uid, backend);
          return backend;
        }),
      })),
    };
    for (const [uid, backend] of entry.backends) if (backends.get(uid) !== backend) retire(backend);
    entry.backends = backends;
    if (!entry.service && entry.pods.size === 0) entries.delete(key);
  }

  return {
    find: (namespace, name) => entries.get(`${namespace}/${name}`)?.route,
    setService(namespace, name, service) {
      const key = `${namespace}/${name}`;
      const entry = entryOf(key);
      entry.service = service;
      rebuild(key, entry);
    },
    setPod(pod, gone = false) {
      const service = pod.metadata.labels?.[SERVICE_LABEL];
      if (service === undefined) return;
      const key = `${pod.metadata.namespace}/${service}`;
      const entry = entryOf(key);
      if (!gone) entry.pods.set(pod.metadata.name, pod);
      else if (entry.pods.get(pod.metadata.name)?.metadata.uid === pod.metadata.uid) {
        entry.pods.delete(pod.metadata.name);
      }
      rebuild(key, entry);
    },
    async close() {
      for (const entry of entries.values()) for (const backend of entry.backends.values()) retire(backend);
      entries.clear();
      await Promise.all(closing);
    },
  };
}
