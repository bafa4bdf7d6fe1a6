/** Objects by key, as the server last told them, with indexes. Objects are shared by all readers: nobody may change one. */
import { type KubeObject, keyOf } from './resources.ts';

export type Change<T> =
  | { type: 'set'; object: T; before: T | undefined }
  /** `object` is the last state known. */
  | { type: 'delete'; object: T };

/** Values under which an object is found. */
export type Indexer<T> = (object: T) => readonly string[];

export interface ReadCache<T extends KubeObject> {
  get(key: string): T | undefined;
  list(): T[];
  /** Objects whose index `name` has `value`. */
  by(name: string, value: string): T[];
}

export class Cache<T extends KubeObject> implements ReadCache<T> {
  readonly #objects = new Map<string, T>();
  readonly #indexers: Record<string, Indexer<T>>;
  readonly #indexes = new Map<string, Map<string, Set<string>>>();

  constructor(indexers: Record<string, Indexer<T>> = {}) {
    this.#indexers = indexers;
    for (const name of Object.keys(indexers)) this.#indexes.set(name, new Map());
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  list(): T[] {
    return [...this.#objects.values()];
  }

  by(name: string, value: string): T[] {
    const index = this.#indexes.get(name);
    if (!index) throw new Error(`there is no index ${name}`);
    return [...(index.get(value) ?? [])].map((key) => this.#objects.get(key)!);
  }

  set(object: T): Change<T> {
    const key = keyOf(object);
    const before = this.#objects.get(key);
    if (before) this.#unindex(key, before);
    this.#objects.set(key, object);
    for (const [name, indexer] of Object.entries(this.#indexers)) {
      const index = this.#indexes.get(name)!;
      for (const value of indexer(object)) {
        const keys = index.get(value);
        if (keys) keys.add(key);
        else index.set(value, new Set([key]));
      }
    }
    return { type: 'set', object, before };
  }

  delete(key: string): Change<T> | undefined {
    const object = this.#objects.get(key);
    if (!object) return undefined;
    this.#unindex(key, object);
    this.#objects.delete(key);
    return { type: 'delete', object };
  }

  keys(): string[] {
    return [...this.#objects.keys()];
  }

  #unindex(key: string, object: T): void {
    for (const [name, indexer] of Object.entries(this.#indexers)) {
      const index = this.#indexes.get(name)!;
      for (const value of indexer(object)) {
        const keys = index.get(value);
        keys?.delete(key);
        if (keys?.size === 0) index.delete(value);
      }
    }
  }
}
