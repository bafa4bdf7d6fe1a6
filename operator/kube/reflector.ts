/**
 * Keeps a cache equal to what the server has: lists in pages, then watches from the resourceVersion reached. A watch that broke,
 * ended or fell silent goes on from where it was; only a resourceVersion that the server no longer has makes it list again.
 * (After client-go's tools/cache/reflector.go.)
 */
import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from './backoff.ts';
import { Cache, type Change, type Indexer, type ReadCache } from './cache.ts';
import type { Client, List, Selection } from './client.ts';
import { ApiError, isGone, type Status } from './errors.ts';
import { compareVersions, type KubeObject, keyOf, type Resource, splitKey } from './resources.ts';

export interface ReflectorOptions<T extends KubeObject> {
  resource: Resource;
  select?: Omit<Selection, 'namespace'>;
  /** Absent or empty: all. */
  namespaces?: readonly string[];
  indexers?: Record<string, Indexer<T>>;
  /** Drops of a freshly parsed object what nobody reads, in place; managed fields are dropped anyway. */
  prune?: (object: T) => void;
  /**
   * Called for every change, after the cache has it. An object deleted and made again under its name is a `delete` of the old
   * and a `set` of the new, however much of it was seen. What this throws is given to `onError`.
   */
  onChange?: (change: Change<T>) => void;
  /** Called when a list or watch failed and is tried again. */
  onError?: (error: unknown) => void;
  observe?: { relist?: (resource: string) => void; rewatch?: (resource: string) => void };
  /** Seconds without event or bookmark after which a watch is taken for dead. Default 90: bookmarks come about once a minute. */
  silenceSeconds?: number;
}

export interface Reflector<T extends KubeObject> {
  cache: ReadCache<T>;
  /** Resolves when the first list of each namespace is in the cache; never if stopped before. */
  synced: Promise<void>;
  hasSynced(): boolean;
  stop(): Promise<void>;
}

/** Objects asked for at once. */
const PAGE = 500;
/** The server ends a watch after this many seconds, up to twice as many, so that not all start again at once. */
const WATCH_SECONDS = 300;
/** First and longest wait before another try, in ms. */
const RETRY = { base: 200, cap: 10_000 };
/** A watch that held this long (ms) had nothing wrong with it: the next failure is a first one. */
const HEALTHY = 10_000;

/** Leaves out what nobody reads and weighs most. Changes the freshly parsed object in place. */
function lighten<T extends KubeObject>(object: T, prune?: (object: T) => void): T {
  if (object.metadata) delete object.metadata.managedFields;
  const annotations = object.metadata?.annotations;
  if (annotations) delete annotations['kubectl.kubernetes.io/last-applied-configuration'];
  prune?.(object);
  return object;
}

export function reflect<T extends KubeObject>(client: Client, options: ReflectorOptions<T>): Reflector<T> {
  const cache = new Cache<T>(options.indexers);
  const stopping = new AbortController();
  const firstLists = Promise.withResolvers<void>();
  const places = options.namespaces?.length ? [...new Set(options.namespaces)] : [undefined];
  const unsynced = new Set(places);
  const running = places.map((namespace) =>
    follow(client, options, cache, namespace, stopping.signal, () => {
      unsynced.delete(namespace);
      if (unsynced.size === 0) firstLists.resolve();
    }),
  );
  return {
    cache,
    synced: firstLists.promise,
    hasSynced: () => unsynced.size === 0,
    stop: async () => {
      stopping.abort();
      await Promise.all(running);
    },
  };
}

/** Keeps the part of the cache that is in `namespace` (undefined: all of it) until the signal. Never throws. */
async function follow<T extends KubeObject>(
  client: Client,
  { resource, onChange, onError = () => {}, observe = {}, silenceSeconds = 90, ...options }: ReflectorOptions<T>,
  cache: Cache<T>,
  namespace: string | undefined,
  signal: AbortSignal,
  onSynced: () => void,
): Promise<void> {
  const select: Selection = { ...options.select, namespace };

  function changed(change: Change<T> | undefined): void {
    if (!change) return;
    try {
      onChange?.(change);
    } catch (error) {
      onError(error);
    }
  }

  function set(object: T): void {
    const known = cache.get(keyOf(object));
    if (known && known.metadata?.uid !== object.metadata?.uid) changed(cache.delete(keyOf(known)));
    changed(cache.set(object));
  }

  /** Fills the cache from a fresh list, read from etcd, not from what one server remembers; returns its resourceVersion. */
  async function relist(): Promise<string> {
    observe.relist?.(resource.plural);
    const seen = new Set<string>();
    let from: string | undefined;
    let limit: number | undefined = PAGE;
    for (;;) {
      let list: List<T>;
      try {
        list = await client.list<T>(resource, select, { limit, continue: from }, signal);
      } catch (error) {
        if (!isGone(error) || from === undefined) throw error;
        // The pages took longer than the server keeps old versions (5 min): all at once, then.
        from = undefined;
        limit = undefined;
        seen.clear();
        continue;
      }
      for (const item of list.items) {
        const object = lighten(item, options.prune);
        seen.add(keyOf(object));
        if (cache.get(keyOf(object))?.metadata?.resourceVersion !== object.metadata?.resourceVersion) set(object);
      }
      if (!list.metadata.continue) {
        for (const key of cache.keys()) {
          const inside = namespace === undefined || splitKey(key).namespace === namespace;
          if (inside && !seen.has(key)) changed(cache.delete(key));
        }
        return list.metadata.resourceVersion;
      }
      from = list.metadata.continue;
    }
  }

  /**
   * Follows a watch until it ends, and calls `reached` with each resourceVersion. An event not newer than what is known of its
   * object, be that its deletion, is a repetition or came late, and changes nothing.
   *
   * @returns whether it ended because it was silent
   */
  async function watch(start: string, reached: (resourceVersion: string) => void): Promise<boolean> {
    observe.rewatch?.(resource.plural);
    const silence = new AbortController();
    const stop = () => silence.abort(signal.reason);
    const timer = setTimeout(() => silence.abort(SILENT), silenceSeconds * 1000);
    signal.addEventListener('abort', stop);
    /** resourceVersions at which objects went; older ones are before `start`. */
    const gone = new Map<string, string | undefined>();
    try {
      const seconds = Math.round(WATCH_SECONDS * (1 + Math.random()));
      for await (const event of client.watch<T>(resource, select, start, silence.signal, seconds)) {
        timer.refresh();
        if (event.type === 'ERROR') {
          const status = event.object as unknown as Status;
          throw new ApiError(`watch of ${resource.plural}`, status.code ?? 500, status);
        }
        const version = event.object.metadata?.resourceVersion;
        if (event.type !== 'BOOKMARK') {
          const object = lighten(event.object, options.prune);
          const key = keyOf(object);
          const known = cache.get(key);
          const newest = known ? known.metadata?.resourceVersion : (gone.get(key) ?? start);
          const isNewer = compareVersions(version, newest) > 0;
          if (event.type === 'DELETED') {
            if (isNewer) gone.set(key, version);
            // Handlers are told the state it was deleted in.
            if (isNewer && known?.metadata?.uid === object.metadata?.uid) cache.set(object);
            if (isNewer) changed(cache.delete(key));
          } else if (isNewer) set(object);
        }
        if (version) reached(version);
      }
      return false;
    } catch (error) {
      if (error === SILENT) return true;
      throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
    }
  }

  /**
   * Whether the server is behind `position`: then it is not the one we watched (restored from a backup, or made anew), and
   * a watch from there would stay silent, or miss what came before. A consistent list cannot be behind otherwise.
   */
  async function isBehind(position: string): Promise<boolean> {
    const { metadata } = await client.list<T>(resource, select, { limit: 1 }, signal);
    return compareVersions(metadata.resourceVersion, position) < 0;
  }

  let position: string | undefined;
  let failures = 0;
  /** The last watch did not end as it should. */
  let doubtful = false;
  while (!signal.aborted) {
    /** When the watch began; a list that fails late has not shown that anything is well. */
    let started: number | undefined;
    let asked = 0;
    try {
      if (position !== undefined && doubtful && (await isBehind(position))) position = undefined;
      if (position === undefined) {
        position = await relist();
        onSynced();
      }
      started = performance.now();
      doubtful = await watch(position, (version) => {
        if (compareVersions(version, position) > 0) position = version;
      });
    } catch (error) {
      if (signal.aborted) return;
      doubtful = true;
      onError(error);
      if (isGone(error)) position = undefined;
      if (error instanceof ApiError) asked = (error.retryAfterSeconds ?? 0) * 1000;
    }
    // A watch that ends soon, again and again, is a failure too, whatever it says.
    const held = started === undefined ? 0 : performance.now() - started;
    failures = held < HEALTHY ? failures + 1 : 0;
    const wait = failures > 0 ? backoff(failures, RETRY.base, RETRY.cap) : 0;
    const ms = Math.max(wait, Math.min(asked, RETRY.cap));
    if (ms > 0) await delay(ms, undefined, { signal }).catch(() => {});
  }
}

const SILENT = new Error('the watch was silent');
