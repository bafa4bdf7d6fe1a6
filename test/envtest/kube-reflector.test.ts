// timeout: 240
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { CONFIG_MAPS, type Resource } from '../../operator/kube/resources.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { eventually } from '../eventually.ts';
import { configMap, Follower, kubeStorm, planStorm } from '../faults/kube.ts';
import { type Fault, type FaultProxy, startFaultProxy } from './kube-proxy.ts';

const it = suite('reflector, queue and controller against an API server');

const NAMESPACES: Resource = { group: '', version: 'v1', plural: 'namespaces', kind: 'Namespace', namespaced: false };
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

for (const seed of [1]) {
  it(`after 600 steps of writes and faults, the server's death among them, caches equal fresh lists, and nothing asked in vain (seed ${seed})`, async () => {
    const { writes, faults, restarts } = await kubeStorm(plane, seed, 600);
    assert.ok(writes + faults >= 500, `${writes} writes and ${faults} faults`);
    assert.is(restarts, 2);
  });
}

it('a seed is a storm: the same again, and another for another', () => {
  assert.equal(planStorm(7, 600), planStorm(7, 600));
  assert.not.equal(planStorm(7, 600), planStorm(8, 600));
});

it('a cache follows again after the server was away', async () => {
  const ns = await namespace('away');
  const follower = new Follower(client, [ns], Math.random);
  await follower.reflector.synced;
  await direct.create(CONFIG_MAPS, configMap(ns, 'a'));
  await follower.settle(direct);
  proxy.fault = () => ({ type: 'Refuse' });
  proxy.cut();
  const before = proxy.requests;
  await direct.delete(CONFIG_MAPS, ns, 'a');
  await direct.create(CONFIG_MAPS, configMap(ns, 'b'));
  const started = performance.now();
  await eventually(async () => performance.now() - started > 3000);
  // At 0.1 to 0.2 s after the first failure, then at twice that and so on: five times in 3 s at the most, a list of four tries.
  assert.ok(proxy.requests - before <= 5 * 4, `${proxy.requests - before} requests in 3 s`);
  proxy.fault = () => undefined;
  await follower.settle(direct);
  assert.is(follower.relists, 1, 'it went on from where it was');
  await follower.stop();
});

it('a cache whose watch is told 410, by its code or in its stream, lists once and asks for nothing when it is quiet', async () => {
  const ns = await namespace('gone');
  const follower = new Follower(client, [ns], Math.random);
  await follower.reflector.synced;
  await direct.create(CONFIG_MAPS, configMap(ns, 'a'));
  await follower.settle(direct);
  const faults: Fault[] = [
    { type: 'Answer', code: 410, reason: 'Expired' },
    { type: 'ErrorEvent', code: 410, reason: 'Expired' },
  ];
  for (const [i, fault] of faults.entries()) {
    let armed = true;
    proxy.fault = ({ isWatch }) => {
      if (!isWatch || !armed) return undefined;
      armed = false;
      return fault;
    };
    const before = proxy.requests;
    proxy.cut();
    await eventually(async () => !armed && proxy.watches() > 0);
    await direct.apply(CONFIG_MAPS, configMap(ns, 'a', { n: `${i}` }), 'test');
    await follower.settle(direct);
    assert.is(follower.relists, 2 + i);
    // Whether the server is the same, the watch that is refused, a list, a watch.
    assert.is(proxy.requests - before, 4);
  }
  const quiet = proxy.requests;
  const since = performance.now();
  await eventually(async () => performance.now() - since > 1500);
  assert.is(proxy.requests, quiet);
  await follower.stop();
});

it('a cache reads a thousand objects in pages while they change', async () => {
  const ns = await namespace('pages');
  const create = async (from: number) => {
    for (let i = from; i < 1000; i += 10) await direct.create(CONFIG_MAPS, configMap(ns, `m${i}`));
  };
  await Promise.all(Array.from({ length: 10 }, (_, i) => create(i)));
  const follower = new Follower(client, [ns], Math.random);
  for (let i = 0; i < 1000; i += 25) await direct.delete(CONFIG_MAPS, ns, `m${i}`);
  const fresh = await follower.settle(direct);
  assert.is(fresh.length, 960);
  await follower.stop();
});

it.run();
