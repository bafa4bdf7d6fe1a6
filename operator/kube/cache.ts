/**
 * Objects by key, as the server last told them, with indexes. All readers share the objects, so they are frozen: whoever wants
 * to change one copies it.
 */
import { type KubeObject, keyOf } from './resources.ts';

export type Change<T> =
  | { type: 'set'; object: T; before: T | undefined }
  /** `object` is the last state known. */
  | { type: 'delete'; object: T };

/** Values under which an object is found. */
export type Indexer<T> = (object: T) => readonly string[];

export interface ReadCache<T extends KubeObject> {
  /** By `namespace/name`, or the name alone of an object without a namespace. */
  get(key: string): T | undefined;
  list(): T[];
  /** Objects whose index `name` has `value`. Throws if there is no such index. */
  by(name: string, value: string): T[];
}

export class Cache<T extends KubeObject> implements ReadCache<T> {
  readonly #objects = new Map<string, T>();
  readonly #indexes: { name: string; of: Indexer<T>; keys: Map<string, Set<string>> }[];

  constructor(indexers: Record<string, Indexer<T>> = {}) {
    this.#indexes = Object.entries(indexers).map(([name, of]) => ({ name, of, keys: new Map() }));
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  list(): T[] {
    return [...this.#objects.values()];
  }

  by(name: string, value: string): T[] {
    const index = this.#indexes.find((candidate) => candidate.name === name);
    if (!index) throw new Error(`there is no index ${name}`);
    return [...(index.keys.get(value) ?? [])].map((key) => this.#objects.get(key)!);
  }

  keys(): string[] {
    return [...this.#objects.keys()];
  }

  /** Takes the object over and freezes it. */
  set(object: T): Change<T> {
    const key = keyOf(object);
    const before = this.#objects.get(key);
    freeze(object);
    // Before anything is changed: an indexer that throws must not leave an object half indexed.
    const values = this.#indexes.map(({ of }) => of(object));
    if (before) this.#unindex(key, before);
    this.#objects.set(key, object);
    this.#indexes.forEach(({ keys }, i) => {
      for (const value of values[i]) {
        const found = keys.get(value);
        if (found) found.add(key);
        else keys.set(value, new Set([key]));
      }
    });
    return { type: 'set', object, before };
  }

  /** undefined: there was none. */
  delete(key: string): Change<T> | undefined {
    const object = this.#objects.get(key);
    if (!object) return undefined;
    this.#unindex(key, object);
    this.#objects.delete(key);
    return { type: 'delete', object };
  }

  #unindex(key: string, object: T): void {
    for (const { of, keys } of this.#indexes) {
      for (const value of of(object)) {
        const found = keys.get(value);
        found?.delete(key);
        if (found?.size === 0) keys.delete(value);
      }
    }
  }
}

function freeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return;
  Object.freeze(value);
  for (const part of Object.values(value)) freeze(part);
}
