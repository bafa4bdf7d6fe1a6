// timeout: 240
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Change } from '../../operator/kube/cache.ts';
import { type Client, connect } from '../../operator/kube/client.ts';
import { type Controller, startController } from '../../operator/kube/controller.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { isNotFound } from '../../operator/kube/errors.ts';
import { Queue } from '../../operator/kube/queue.ts';
import { type Reflector, reflect } from '../../operator/kube/reflector.ts';
import { CONFIG_MAPS, type KubeObject, keyOf, type Resource } from '../../operator/kube/resources.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { eventually } from '../eventually.ts';
import { type FaultProxy, randomOf, startFaultProxy } from './kube-proxy.ts';

const it = suite('reflector, queue and controller against an API server');

const NAMESPACES: Resource = { group: '', version: 'v1', plural: 'namespaces', kind: 'Namespace', namespaced: false };
const SELECTOR = 'app=storm';

type ConfigMap = KubeObject & { data?: Record<string, string> };

let plane: ControlPlane;
/** Past the proxy. */
let direct: Client;
let proxy: FaultProxy;
let client: Client;

it.before(async () => {
  plane = await startControlPlane();
  direct = await connect(loadConfig(plane.kubeconfig));
  proxy = await startFaultProxy(plane.admin);
  client = await connect(proxy.config);
});
it.after(async () => {
  await client.close();
  await direct.close();
  await proxy[Symbol.asyncDispose]();
  await plane.stop();
});
it.after.each(() => {
  proxy.fault = () => undefined;
});

async function namespace(name: string): Promise<string> {
  await direct.create(NAMESPACES, { metadata: { name } });
  return name;
}

function configMap(ns: string, name: string, data: Record<string, string> = {}, app = 'storm'): ConfigMap {
  return { metadata: { name, namespace: ns, labels: { app } }, data };
}

const identity = (object: KubeObject) =>
  `${keyOf(object)} ${object.metadata?.uid} ${object.metadata?.resourceVersion} ${JSON.stringify((object as ConfigMap).data)}`;

/** A reflector, what its handlers were told, and a controller that it feeds. */
class Follower {
  readonly reflector: Reflector<ConfigMap>;
  /** Built from changes alone. */
  readonly told = new Map<string, string>();
  readonly queue = new Queue();
  readonly controller: Controller;
  readonly inWork = new Set<string>();
  twice = 0;
  wrong: string[] = [];
  relists = 0;

  constructor(namespaces: string[]) {
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
    this.controller = startController({
      queue: this.queue,
      concurrency: 4,
      reconcile: async (key) => {
        if (this.inWork.has(key)) this.twice += 1;
        this.inWork.add(key);
        await new Promise((resolve) => setImmediate(resolve));
        this.inWork.delete(key);
        return undefined;
      },
    });
  }

  #changed(change: Change<ConfigMap>): void {
    const key = keyOf(change.object);
    const known = this.told.get(key);
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

  /** What is in the cache, and in what was told, once they agree with the server. */
  async settle(namespaces: string[]): Promise<string[]> {
    const places = namespaces.length === 0 ? [undefined] : namespaces;
    let fresh: string[] = [];
    try {
      await eventually(async () => {
        const lists = places.map((place) =>
          direct.list<ConfigMap>(CONFIG_MAPS, { labelSelector: SELECTOR, namespace: place }),
        );
        fresh = (await Promise.all(lists)).flatMap(({ items }) => items.map(identity)).sort();
        return this.reflector.cache.list().map(identity).sort().join() === fresh.join();
      });
    } catch {
      assert.equal(this.reflector.cache.list().map(identity).sort(), fresh, 'the cache differs from a fresh list');
    }
    assert.equal([...this.told.values()].sort(), fresh, 'what handlers were told differs from the cache');
    return fresh;
  }

  async stop(): Promise<void> {
    await this.reflector.stop();
    await this.controller.stop();
  }
}

/** Writes and faults drawn from a seed. */
async function storm(seed: number, writes: number): Promise<void> {
  const random = randomOf(seed);
  const draw = (below: number) => Math.floor(random() * below);
  const spaces = [await namespace(`storm-${seed}-a`), await namespace(`storm-${seed}-b`)];
  for (let i = 0; i < 30; i++) await direct.create(CONFIG_MAPS, configMap(spaces[i % 2], `m${i}`));

  proxy.fault = ({ isWatch }) => {
    const dice = random();
    if (dice < 0.08) return { type: 'Refuse' };
    if (dice < 0.12) return { type: 'Answer', code: 429, reason: 'TooManyRequests', retryAfterSeconds: 1 };
    if (dice < 0.16) return { type: 'Answer', code: 503, reason: 'ServiceUnavailable' };
    if (dice < 0.22 && isWatch) return { type: 'Answer', code: 410, reason: 'Expired' };
    if (dice < 0.3) return { type: 'Delay', ms: draw(150) };
    if (dice < 0.34) return { type: 'LoseAnswer' };
    return undefined;
  };
  const before = proxy.requests;
  const started = performance.now();
  const followers = [new Follower([]), new Follower(spaces)];
  try {
    for (let i = 0; i < writes; i++) {
      const ns = spaces[draw(2)];
      const name = `m${draw(40)}`;
      try {
        // Deletion, change of labels in and out of the selection, or new data.
        const dice = draw(10);
        if (dice < 3) await direct.delete(CONFIG_MAPS, ns, name);
        else
          await direct.apply(
            CONFIG_MAPS,
            typed(configMap(ns, name, { n: String(i) }, dice === 3 ? 'other' : 'storm')),
            'test',
          );
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
      if (draw(12) === 0) proxy.cut(() => random() < 0.6);
    }
    proxy.fault = () => undefined;
    const minutes = (performance.now() - started) / 60_000;
    const requests = proxy.requests - before;
    for (const [i, follower] of followers.entries()) {
      const fresh = await follower.settle(i === 0 ? [] : spaces);
      assert.ok(fresh.length > 5, 'the storm left something to compare');
      await follower.reflector.synced;
      assert.equal(follower.wrong, []);
      assert.is(follower.twice, 0, 'a key was in work twice at once');
    }
    // Three list-and-watch loops, each at most some 20 tries in the first minute (0.2 s doubling to 10 s), each try at
    // most a check of the server's position, a list of four tries and a watch.
    assert.ok(requests <= 3 * 6 * (20 + 6 * minutes), `${requests} requests in ${minutes.toFixed(2)} minutes`);
  } finally {
    await Promise.all(followers.map((follower) => follower.stop()));
  }
}

function typed(object: ConfigMap): ConfigMap {
  return { apiVersion: 'v1', kind: 'ConfigMap', ...object };
}

for (const seed of [1, 2, 3]) {
  it(`a cache equals a fresh list after 300 writes under faults, and no key was in work twice (seed ${seed})`, () =>
    storm(seed, 300));
}

it('a cache follows again after the server was away', async () => {
  const ns = await namespace('away');
  const follower = new Follower([ns]);
  await follower.reflector.synced;
  await direct.create(CONFIG_MAPS, configMap(ns, 'a'));
  await follower.settle([ns]);
  proxy.fault = () => ({ type: 'Refuse' });
  proxy.cut();
  const before = proxy.requests;
  await direct.delete(CONFIG_MAPS, ns, 'a');
  await direct.create(CONFIG_MAPS, configMap(ns, 'b'));
  const started = performance.now();
  await eventually(async () => performance.now() - started > 3000);
  assert.ok(proxy.requests - before <= 24, `${proxy.requests - before} requests in 3 s`);
  proxy.fault = () => undefined;
  await follower.settle([ns]);
  assert.is(follower.relists, 1, 'it went on from where it was');
  await follower.stop();
});

it('a cache reads a thousand objects in pages while they change', async () => {
  const ns = await namespace('pages');
  const create = async (from: number) => {
    for (let i = from; i < 1000; i += 10) await direct.create(CONFIG_MAPS, configMap(ns, `m${i}`));
  };
  await Promise.all(Array.from({ length: 10 }, (_, i) => create(i)));
  const follower = new Follower([ns]);
  for (let i = 0; i < 1000; i += 25) await direct.delete(CONFIG_MAPS, ns, `m${i}`);
  const fresh = await follower.settle([ns]);
  assert.is(fresh.length, 960);
  await follower.stop();
});

it.run();
