/**
 * Keeps a cache equal to what the server has: lists in pages, then watches from the resourceVersion reached. A broken or silent
 * watch goes on from where it was; only a resourceVersion that the server no longer has (410) makes it list again.
 * (After client-go's tools/cache/reflector.go.)
 */
import { backoff } from './backoff.ts';
import { Cache, type Change, type Indexer, type ReadCache } from './cache.ts';
import type { Client, Selection } from './client.ts';
import { ApiError, isGone, type Status } from './errors.ts';
import { type KubeObject, keyOf, type Resource } from './resources.ts';

export interface ReflectorOptions<T extends KubeObject> {
  resource: Resource;
  select?: Selection;
  indexers?: Record<string, Indexer<T>>;
  /** Called for every change, in the order of the watch. Must not throw. */
  onChange?: (change: Change<T>) => void;
  /** Called when a list or watch failed and is tried again. */
  onError?: (error: unknown) => void;
  observe?: { relist?: (resource: string) => void; rewatch?: (resource: string) => void };
}

export interface Reflector<T extends KubeObject> {
  cache: ReadCache<T>;
  /** Resolves when the first list is in the cache. */
  synced: Promise<void>;
  hasSynced(): boolean;
  stop(): Promise<void>;
}

const PAGE = 500;

/** What nobody reads and weighs most. Changes the freshly parsed object in place. */
function lighten<T extends KubeObject>(object: T): T {
  if (object.metadata) delete object.metadata.managedFields;
  const annotations = object.metadata?.annotations;
  if (annotations) delete annotations['kubectl.kubernetes.io/last-applied-configuration'];
  return object;
}

/** Orders states of one object: resourceVersions are numbers that rise (Kubernetes ≥ 1.35 promises it, all servers on etcd do it). */
function isOlder(object: KubeObject, than: KubeObject | undefined): boolean {
  const [a, b] = [object.metadata?.resourceVersion, than?.metadata?.resourceVersion];
  if (!a || !b || !/^\d+$/.test(a) || !/^\d+$/.test(b)) return false;
  return BigInt(a) < BigInt(b);
}

export function reflect<T extends KubeObject>(client: Client, options: ReflectorOptions<T>): Reflector<T> {
  const { resource, select = {}, onChange = () => {}, onError = () => {}, observe = {} } = options;
  const cache = new Cache<T>(options.indexers);
  const stopping = new AbortController();
  const { signal } = stopping;
  const firstList = Promise.withResolvers<void>();
  let synced = false;

  /** Fills the cache from a fresh list and returns its resourceVersion. */
  async function relist(): Promise<string> {
    const seen = new Set<string>();
    let page: { limit: number; continue?: string } = { limit: PAGE };
    for (;;) {
      const list = await client.list<T>(resource, select, page);
      for (const item of list.items) {
        const object = lighten(item);
        seen.add(keyOf(object));
        const known = cache.get(keyOf(object));
        if (known?.metadata?.resourceVersion !== object.metadata?.resourceVersion) onChange(cache.set(object));
      }
      if (!list.metadata.continue) {
        for (const key of cache.keys()) {
          const gone = seen.has(key) ? undefined : cache.delete(key);
          if (gone) onChange(gone);
        }
        return list.metadata.resourceVersion;
      }
      page = { limit: PAGE, continue: list.metadata.continue };
    }
  }

  /** Follows the watch until it ends; yields the resourceVersion reached through `reached`. */
  async function follow(from: string, reached: (resourceVersion: string) => void): Promise<void> {
    for await (const event of client.watch<T>(resource, select, from, signal)) {
      if (event.type === 'ERROR') {
        const status = event.object as unknown as Status;
        throw new ApiError(`watch of ${resource.plural}`, status.code ?? 500, status);
      }
      const version = event.object.metadata?.resourceVersion;
      if (event.type !== 'BOOKMARK') {
        const object = lighten(event.object);
        const key = keyOf(object);
        if (event.type === 'DELETED') {
          if (!isOlder(object, cache.get(key))) {
            cache.set(object);
            onChange(cache.delete(key)!);
          }
        } else if (!isOlder(object, cache.get(key))) onChange(cache.set(object));
      }
      if (version) reached(version);
    }
  }

  async function run(): Promise<void> {
    let resourceVersion: string | undefined;
    let failures = 0;
    while (!signal.aborted) {
      try {
        if (resourceVersion === undefined) {
          observe.relist?.(resource.plural);
          resourceVersion = await relist();
          synced = true;
          firstList.resolve();
        }
        observe.rewatch?.(resource.plural);
        const started = performance.now();
        await follow(resourceVersion, (version) => {
          resourceVersion = version;
          failures = 0;
        });
        // A watch that the server ends at once, again and again, is a failure too.
        failures = performance.now() - started < 1000 ? failures + 1 : 0;
      } catch (error) {
        if (signal.aborted) return;
        failures += 1;
        onError(error);
        if (isGone(error)) resourceVersion = undefined;
      }
      if (failures > 0) await pause(backoff(failures, 200, 30_000), signal);
    }
  }

  const running = run();
  return {
    cache,
    synced: firstList.promise,
    hasSynced: () => synced,
    stop: async () => {
      stopping.abort();
      await running;
    },
  };
}

/** Waits `ms`, or until the signal. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
