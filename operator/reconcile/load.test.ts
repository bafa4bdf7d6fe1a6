import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { V1Pod } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { KubeServer, type Pod } from '../../test/kube-server.ts';
import { PREDICTOR_PORT } from '../../trainer-image/contract.ts';
import { type Client, connect } from '../kube/client.ts';
import { createLoadBoard, type LoadBoard } from './load.ts';

/** Metrics that a test may change; undefined: the process does not answer well. */
interface Source {
  text: string | undefined;
  server: Server;
  port: number;
}

interface World {
  kube: KubeServer;
  client: Client;
  board: LoadBoard;
  /** Milliseconds. */
  now: number;
  sources: Source[];
}

const it = suite<World>('load');
const SERVICE = { namespace: 'n', name: 'a', uid: 'u' };
const SYSTEM = 'fovea-system';
/** An address of this process for servers at the predictors' port. */
const OWN = (n: number) => `127.93.${(process.pid >> 6) & 255}.${((process.pid & 63) << 2) + n}`;

it.before.each(async (world) => {
  world.kube = await KubeServer.start();
  world.client = await connect(world.kube.config);
  world.now = 0;
  world.sources = [];
  world.board = createLoadBoard({
    client: world.client,
    namespace: SYSTEM,
    onError: (error) => console.error(error),
    now: () => world.now,
  });
});

it.after.each(async (world) => {
  await world.board.stop();
  await world.client.close();
  await world.kube[Symbol.asyncDispose]();
  for (const { server } of world.sources) {
    server.close();
    server.closeAllConnections();
  }
});

async function source(world: World, text: string, address = '127.0.0.1', at = 0): Promise<Source> {
  const server = createServer((_request, response) => {
    response.writeHead(made.text === undefined ? 500 : 200).end(made.text);
  });
  server.listen(at, address);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const made: Source = { text, server, port };
  world.sources.push(made);
  return made;
}

const pod = (uid: string, podIP: string, port: number, ready = 'True') => ({
  metadata: { name: uid, namespace: SYSTEM, uid, resourceVersion: '1' },
  spec: { containers: [{ name: 'c', ports: [{ name: 'http', containerPort: port }] }] },
  status: { podIP, conditions: [{ type: 'Ready', status: ready }] },
});

/** A pod of the gateway with these metrics. */
async function gateway(world: World, uid: string, inFlight: number, seconds = 0): Promise<Source> {
  const made = await source(world, carried(inFlight, seconds));
  world.kube.pods.set(`${SYSTEM}/${uid}`, pod(uid, '127.0.0.1', made.port) as Pod);
  return made;
}

const carried = (inFlight: number, seconds: number) => `# HELP fovea_gateway_requests_in_flight Requests
fovea_gateway_requests_in_flight{namespace="n",service="a"} ${inFlight}
fovea_gateway_requests_in_flight{namespace="n",service="ab"} 1000
fovea_gateway_requests_in_flight{namespace="",service=""} 1000
fovea_gateway_request_seconds_total{namespace="n",service="a"} ${seconds}
fovea_gateway_request_seconds_total{namespace="m",service="a"} 1000
`;

async function predictor(world: World, n: number, pending: number): Promise<{ made: Source; at: V1Pod }> {
  const text = `nv_inference_pending_request_count{model="a",version="1"} ${pending}\n`;
  const made = await source(world, text, OWN(n), PREDICTOR_PORT);
  return { made, at: pod(`p${n}`, OWN(n), PREDICTOR_PORT) as unknown as V1Pod };
}

/** The newest sample, two seconds after the one before. */
async function measure(world: World, predictors: V1Pod[] = [], service = SERVICE) {
  world.now += 2000;
  return (await world.board.measure(service, predictors, 10)).at(-1)!;
}

/** Measures once the gateway's pods are known; until then a sample says that it is not complete. */
async function known(world: World, predictors: V1Pod[] = []) {
  for (;;) {
    const sample = await measure(world, predictors);
    if (sample.complete) return sample;
    await new Promise(setImmediate);
  }
}

it('adds up what the gateway’s pods have in flight of this service, and of no other', async (world) => {
  await gateway(world, 'g1', 3);
  await gateway(world, 'g2', 4);
  assert.is((await known(world)).pending, 7);
});

it('takes the average over the time since it last looked, not the moment', async (world) => {
  const first = await gateway(world, 'g1', 3, 100);
  await known(world);
  first.text = carried(0, 110);
  assert.equal(await measure(world), { at: world.now, pending: 5, complete: true });
  // A process that began anew counts from nothing.
  first.text = carried(2, 1);
  assert.is((await measure(world)).pending, 2);
});

it('goes on with what can be read, and says that something could not', async (world) => {
  await gateway(world, 'g1', 3);
  const second = await gateway(world, 'g2', 4);
  await known(world);
  second.server.close();
  second.server.closeAllConnections();
  const { pending, complete } = await measure(world);
  assert.equal([pending, complete], [0, false], 'none in flight on average, at the one that answers');
});

it('counts requests that wait in predictors, which came past the gateway, and none of them twice', async (world) => {
  const one = await predictor(world, 1, 5);
  const two = await predictor(world, 2, 4);
  assert.is((await known(world, [one.at, two.at])).pending, 9, 'without any gateway');
  two.made.text = undefined;
  assert.is((await measure(world, [one.at, two.at])).complete, false);
  const leaving = { ...two.at, metadata: { ...two.at.metadata, deletionTimestamp: new Date() } };
  assert.equal(await measure(world, [one.at, leaving]), { at: world.now, pending: 5, complete: true });
});

it('takes the greater of what is in flight and what waits', async (world) => {
  await gateway(world, 'g1', 7);
  const { at } = await predictor(world, 3, 5);
  assert.is((await known(world, [at])).pending, 7);
});

it('knows nothing for certain while no pod of the gateway is ready', async (world) => {
  world.kube.pods.set(`${SYSTEM}/g`, pod('g', '127.0.0.1', 1, 'False') as Pod);
  await measure(world);
  while (!world.kube.requests.some((asked) => asked.includes('watch'))) await new Promise(setImmediate);
  assert.is((await measure(world)).complete, false);
});

it('keeps the samples of the time asked for and one more, and begins anew with another service of the name', async (world) => {
  await known(world);
  for (let i = 0; i < 10; i++) await measure(world);
  const samples = await world.board.measure(SERVICE, [], 10);
  assert.equal(
    samples.map(({ at }) => world.now - at),
    [10_000, 8000, 6000, 4000, 2000, 0],
  );
  const other = { ...SERVICE, uid: 'other' };
  assert.is((await world.board.measure(other, [], 10)).length, 1);
  world.board.forget('n/a');
  assert.is((await world.board.measure(other, [], 10)).length, 1);
});

it.run();
