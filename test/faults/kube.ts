/**
 * The kube layer under faults: caches, queues and controllers behind a proxy that breaks what passes through it, on an API server
 * that is killed and a database that forgets, while objects change. All steps are drawn from a seed before the first is taken.
 */
import * as assert from 'uvu/assert';
import type { Change } from '../../operator/kube/cache.ts';
import { type Client, connect } from '../../operator/kube/client.ts';
import { type Controller, startController } from '../../operator/kube/controller.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { isAlreadyExists, isNotFound, isTransient } from '../../operator/kube/errors.ts';
import { Queue } from '../../operator/kube/queue.ts';
import { type Reflector, reflect } from '../../operator/kube/reflector.ts';
import { CONFIG_MAPS, type KubeObject, keyOf, type Resource } from '../../operator/kube/resources.ts';
import type { ControlPlane } from '../cluster/controlplane.ts';
import { accessOf } from '../cluster/credentials.ts';
import { request } from '../cluster/requests.ts';
import { type Fault, randomOf, startFaultProxy } from '../envtest/kube-proxy.ts';
import { eventually } from '../eventually.ts';

const NAMESPACES: Resource = { group: '', version: 'v1', plural: 'namespaces', kind: 'Namespace', namespaced: false };
const SELECTOR = 'app=storm';
/** Followed by one cache over all namespaces, and by one with a watch for each. */
const SPACES = ['a', 'b'] as const;
/** ms: a watch that held about so long makes the next failure a first one. */
const HELD = 9_900;
/** Names in each namespace. */
const NAMES = 40;

export type ConfigMap = KubeObject & { data?: Record<string, string> };

export type Step =
  | { type: 'apply'; space: number; name: string; value: string; selected: boolean }
  | { type: 'delete'; space: number; name: string }
  /** Is waiting for the next request that it fits. */
  | { type: 'fault'; of: 'watch' | 'list' | 'any'; fault: Fault }
  /** Breaks some of the open watches, chosen by these numbers in [0, 1). */
  | { type: 'cut'; dice: number[] }
  /** The database forgets all versions before the present one. */
  | { type: 'compact' }
  /** The API server is killed and started again; the steps after this one do not wait for it. */
  | { type: 'restart' }
  /** Waits until the caches equal a fresh list. */
  | { type: 'settle' };

/** What is done, in order. Pure. */
export function planStorm(seed: number, length: number): Step[] {
  const random = randomOf(seed);
  const draw = (below: number) => Math.floor(random() * below);
  const steps: Step[] = [];
  const restarts = [Math.floor(length * (0.2 + 0.2 * random())), Math.floor(length * (0.6 + 0.2 * random()))];
  for (let i = 0; i < length; i++) {
    const dice = random();
    const place = { space: draw(SPACES.length), name: `m${draw(NAMES)}` };
    if (restarts.includes(i)) steps.push({ type: 'compact' }, { type: 'restart' });
    else if (i % 200 === 199) steps.push({ type: 'settle' });
    else if (dice < 0.5) steps.push({ type: 'apply', ...place, value: `${i}`, selected: draw(8) > 0 });
    else if (dice < 0.72) steps.push({ type: 'delete', ...place });
    else if (dice < 0.92) steps.push({ type: 'fault', ...drawFault(draw) });
    else if (dice < 0.98) steps.push({ type: 'cut', dice: [random(), random(), random()] });
    else steps.push({ type: 'compact' });
  }
  return steps;
}

function drawFault(draw: (below: number) => number): { of: 'watch' | 'list' | 'any'; fault: Fault } {
  const kinds: { of: 'watch' | 'list' | 'any'; fault: Fault }[] = [
    { of: 'any', fault: { type: 'Refuse' } },
    { of: 'any', fault: { type: 'LoseAnswer' } },
    { of: 'any', fault: { type: 'Delay', ms: draw(300) } },
    { of: 'any', fault: { type: 'Delay', ms: draw(300) } },
    { of: 'any', fault: { type: 'Answer', code: 429, reason: 'TooManyRequests', retryAfterSeconds: 1 } },
    { of: 'any', fault: { type: 'Answer', code: 500, reason: 'InternalError' } },
    { of: 'any', fault: { type: 'Answer', code: 503, reason: 'ServiceUnavailable' } },
    { of: 'watch', fault: { type: 'Answer', code: 410, reason: 'Expired' } },
    { of: 'watch', fault: { type: 'ErrorEvent', code: 410, reason: 'Expired' } },
    { of: 'watch', fault: { type: 'ErrorEvent', code: 500, reason: 'InternalError' } },
  ];
  return kinds[draw(kinds.length)]!;
}

const identity = (object: KubeObject) =>
  `${keyOf(object)} ${object.metadata?.uid} ${object.metadata?.resourceVersion} ${JSON.stringify((object as ConfigMap).data)}`;

/** A reflector, what its handlers were told, and a controller that it feeds. */
export class Follower {
  readonly reflector: Reflector<ConfigMap>;
  /** Built from changes alone. */
  readonly told = new Map<string, string>();
  changes = 0;
  readonly queue = new Queue();
  readonly #controller: Controller;
  readonly #inWork = new Set<string>();
  /** What the last reconcile of each key that ended well saw. */
  readonly #seen = new Map<string, string>();
  runs = 0;
  failures = 0;
  twice = 0;
  readonly wrong: string[] = [];
  relists = 0;
  readonly #namespaces: string[];

  /** @param random draws how long reconciles take and which of them fail */
  constructor(client: Client, namespaces: string[], random: () => number) {
    this.#namespaces = namespaces;
    this.reflector = reflect<ConfigMap>(client, {
      resource: CONFIG_MAPS,
      select: { labelSelector: SELECTOR },
      namespaces,
      onChange: (change) => this.#changed(change),
      observe: {
        relist: () => {
          this.relists += 1;
        },
      },
    });
    this.#controller = startController({
      queue: this.queue,
      concurrency: 4,
      reconcile: async (key) => {
        this.runs += 1;
        if (this.#inWork.has(key)) this.twice += 1;
        this.#inWork.add(key);
        const object = this.reflector.cache.get(key);
        for (let turns = random() * 4; turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
        this.#inWork.delete(key);
        if (random() < 0.1) {
          this.failures += 1;
          throw new Error('drawn');
        }
        this.#seen.set(key, object ? identity(object) : '');
        return undefined;
      },
    });
  }

  #changed(change: Change<ConfigMap>): void {
    const key = keyOf(change.object);
    const known = this.told.get(key);
    this.changes += 1;
    if (change.type === 'delete') {
      if (known === undefined) this.wrong.push(`${key} went and had not come`);
      this.told.delete(key);
    } else {
      if ((known === undefined) !== (change.before === undefined)) this.wrong.push(`${key} had another state before`);
      if (known === identity(change.object)) this.wrong.push(`${key} was told twice`);
      this.told.set(key, identity(change.object));
    }
    this.queue.add(key);
  }

  /**
   * Waits until the cache equals a list read past the proxy, and checks what handlers were told and what was reconciled last.
   *
   * @returns what there is
   */
  async settle(direct: Client): Promise<string[]> {
    const places = this.#namespaces.length === 0 ? [undefined] : this.#namespaces;
    let fresh: string[] = [];
    const cached = () => this.reflector.cache.list().map(identity).sort();
    try {
      await eventually(async () => {
        const lists = places.map((place) =>
          direct.list<ConfigMap>(CONFIG_MAPS, { labelSelector: SELECTOR, namespace: place }),
        );
        fresh = (await Promise.all(lists)).flatMap(({ items }) => items.map(identity)).sort();
        return cached().join() === fresh.join();
      });
    } catch {
      assert.equal(cached(), fresh, 'the cache differs from a fresh list');
    }
    assert.equal([...this.told.values()].sort(), fresh, 'what handlers were told differs from the cache');
    const reconciled = () => [...this.#seen.values()].filter((seen) => seen !== '').sort();
    await eventually(
      async () => reconciled().join() === fresh.join(),
      () => 'the last reconcile of each key saw its last state',
    );
    assert.equal(this.wrong, []);
    assert.is(this.twice, 0, 'a key was in work twice at once');
    assert.ok(
      this.runs <= this.changes + this.failures,
      `${this.runs} reconciles of ${this.changes} changes and ${this.failures} failures`,
    );
    return fresh;
  }

  async stop(): Promise<void> {
    await this.reflector.stop();
    await this.#controller.stop();
  }
}

/** What happened in a storm. */
export interface Storm {
  seed: number;
  writes: number;
  /** Faults that met a request, watches that were cut, versions forgotten, and servers killed. */
  faults: number;
  restarts: number;
  requests: number;
  /** Of these, to a server that was away. */
  unanswered: number;
  relists: number;
  seconds: number;
}

/**
 * Carries out the steps of a seed.
 *
 * @throws Error naming the seed, if a cache, a handler or a queue is wrong at the end, or too much was asked of the server
 */
export async function kubeStorm(plane: ControlPlane, seed: number, length: number): Promise<Storm> {
  try {
    return await carryOut(plane, seed, planStorm(seed, length));
  } catch (error) {
    const { message } = error as Error;
    throw new Error(`storm of seed ${seed}, ${length} steps: ${message}`, { cause: error });
  }
}

async function carryOut(plane: ControlPlane, seed: number, steps: readonly Step[]): Promise<Storm> {
  const direct = await connect(loadConfig(plane.kubeconfig));
  await using proxy = await startFaultProxy(plane.admin);
  const client = await connect(proxy.config);
  const storm: Storm = { seed, writes: 0, faults: 0, restarts: 0, requests: 0, unanswered: 0, relists: 0, seconds: 0 };
  const waiting: Extract<Step, { type: 'fault' }>[] = [];
  /** Tries that ended in a fault, each of which is a reason to ask again. */
  let broken = 0;
  let restarting: Promise<void> = Promise.resolve();

  const spaces = SPACES.map((space) => `storm-${seed}-${space}`);
  for (const name of spaces) {
    await direct.create(NAMESPACES, { metadata: { name } }).catch((error) => {
      if (!isAlreadyExists(error)) throw error;
    });
  }
  proxy.fault = ({ isWatch }) => {
    const fits = waiting.findIndex(({ of }) => of === 'any' || (of === 'watch') === isWatch);
    if (fits < 0) return undefined;
    const [{ fault }] = waiting.splice(fits, 1) as [Extract<Step, { type: 'fault' }>];
    storm.faults += 1;
    if (fault.type !== 'Delay') broken += 1;
    return fault;
  };

  async function take(step: Step): Promise<void> {
    if (step.type === 'apply') {
      const object = configMap(spaces[step.space]!, step.name, { n: step.value }, step.selected);
      await direct.apply(CONFIG_MAPS, object, 'test');
      storm.writes += 1;
    } else if (step.type === 'delete') {
      await direct.delete(CONFIG_MAPS, spaces[step.space], step.name).catch((error) => {
        if (!isNotFound(error)) throw error;
      });
      storm.writes += 1;
    } else if (step.type === 'fault') {
      waiting.push(step);
    } else if (step.type === 'cut') {
      const dice = [...step.dice];
      const cut = proxy.cut(() => (dice.shift() ?? 0) < 0.6);
      storm.faults += cut;
      broken += cut;
    } else if (step.type === 'compact') {
      await compact(plane);
      storm.faults += 1;
    } else if (step.type === 'restart') {
      await restarting;
      restarting = plane.restart('kube-apiserver');
      storm.restarts += 1;
      storm.faults += 1;
    } else {
      await restarting;
      for (const follower of followers) await follower.settle(direct);
    }
  }

  const random = randomOf(seed + 1);
  const started = performance.now();
  const followers = [new Follower(client, [], random), new Follower(client, spaces, random)];
  const loops = 1 + spaces.length;
  try {
    for (const step of steps) {
      // While the server is away writes are tried until it is back.
      await eventually(async () => {
        try {
          await take(step);
          return true;
        } catch (error) {
          if (isTransient(error)) return false;
          throw error;
        }
      });
    }
    await restarting;
    waiting.length = 0;
    for (const follower of followers) {
      const fresh = await follower.settle(direct);
      assert.ok(fresh.length > 5, 'the storm left something to compare');
    }
    storm.seconds = (performance.now() - started) / 1000;
    storm.requests = proxy.requests;
    storm.unanswered = proxy.unanswered;
    storm.relists = followers.reduce((sum, { relists }) => sum + relists, 0);
    // Whoever asks has a reason: it begins (a list, a watch), or something broke (where the server is, a list, a watch).
    const reasons = broken + proxy.unanswered;
    const most = 2 * loops + 3 * reasons;
    assert.ok(storm.requests <= most, `${storm.requests} requests for ${reasons} reasons`);
    // And the more often something breaks, the longer each loop waits, until a watch has held: a try is a watch at the most, and
    // two lists of four requests each.
    const held = proxy.watched.filter((ms) => ms >= HELD).length;
    const tries = loops * triesWithin(storm.seconds) + held * triesWithin(HELD / 1000);
    assert.ok(
      proxy.watched.length <= tries,
      `${proxy.watched.length} watches in ${storm.seconds} s, ${held} of which held`,
    );
    assert.ok(proxy.unanswered <= 9 * tries, `${proxy.unanswered} requests without an answer in ${storm.seconds} s`);
    return storm;
  } finally {
    await restarting.catch(() => {});
    await Promise.all(followers.map((follower) => follower.stop()));
    await client.close();
    await direct.close();
  }
}

/** How often a loop may try in so many seconds: its n-th wait is at least 0.1 · 2^(n−1) s, but no more than 5 s. */
function triesWithin(seconds: number): number {
  let tries = 1;
  for (let passed = 0; ; tries++) {
    passed += Math.min(5, 0.1 * 2 ** (tries - 1));
    if (passed > seconds) return tries;
  }
}

export function configMap(
  namespace: string,
  name: string,
  data: Record<string, string> = {},
  selected = true,
): ConfigMap {
  const labels = { app: selected ? 'storm' : 'other' };
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace, labels }, data };
}

/** Through etcd's HTTP gateway. */
async function compact(plane: ControlPlane): Promise<void> {
  const access = await accessOf(plane.dir, 'etcd-client', plane.etcd, 'etcd-ca');
  const ask = async (path: string, body: object) => {
    const answer = await request(access, path, { method: 'POST', body });
    // Compacted already: that is what was wanted.
    if (answer.status === 200 || answer.body.includes('has been compacted')) return JSON.parse(answer.body);
    throw new Error(`etcd answered ${path} with ${answer.status}: ${answer.body}`);
  };
  const { header } = await ask('/v3/kv/range', { key: Buffer.from('/').toString('base64'), keys_only: true });
  await ask('/v3/kv/compaction', { revision: header.revision, physical: true });
}
