import { once } from 'node:events';
import { createServer, type RequestListener, type Server, request as send } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer, type Server as TcpServer } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Backend, type LiveRoute, openBackend } from './backends.ts';
import { gatewayMetrics } from './metrics.ts';
import { type GatewayServer, startGateway } from './server.ts';

interface World {
  gateway: GatewayServer;
  url: string;
  route: LiveRoute;
  metrics: ReturnType<typeof gatewayMetrics>;
  servers: (Server | TcpServer)[];
}

const it = suite<World>('gateway');

it.before.each(async (world) => {
  world.servers = [];
  world.metrics = gatewayMetrics();
  world.route = { namespace: 'n', name: 'a', maxBodyBytes: 1000, timeoutMilliseconds: 20_000, revisions: [] };
  world.gateway = await startGateway({
    table: { find: (namespace, name) => (namespace === 'n' && name === 'a' ? world.route : undefined) },
    metrics: world.metrics,
    address: '127.0.0.1',
    port: 0,
    ready: () => true,
  });
  world.url = `http://127.0.0.1:${world.gateway.port}/v1/namespaces/n/inferenceservices/a`;
});

it.after.each(async (world) => {
  await Promise.all(world.route.revisions.flatMap(({ backends }) => backends).map(({ pool }) => pool.destroy()));
  await world.gateway.drain(0, 0);
  for (const server of world.servers) {
    server.close();
    if ('closeAllConnections' in server) server.closeAllConnections();
  }
});

async function listening(world: World, server: Server | TcpServer): Promise<string> {
  server.listen(0, '127.0.0.1');
  world.servers.push(server);
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Adds a revision with a pod for each listener, or for each origin. */
async function revision(
  world: World,
  name: string,
  weight: number,
  ...pods: (RequestListener | string)[]
): Promise<Backend[]> {
  const backends: Backend[] = [];
  for (const pod of pods) {
    const origin = typeof pod === 'string' ? pod : await listening(world, createServer(pod));
    backends.push(openBackend({ uid: origin, origin }, name));
  }
  world.route.revisions.push({ name, weight, backends });
  return backends;
}

/** An origin at which nothing listens. */
async function closedOrigin(world: World): Promise<string> {
  const server = createServer();
  const origin = await listening(world, server);
  server.close();
  await once(server, 'close');
  return origin;
}

const answers =
  (text: string): RequestListener =>
  (_request, response) =>
    response.end(text);
const classify = (world: World, body: Buffer | string = 'picture') =>
  fetch(`${world.url}:classify`, { method: 'POST', body });

/** Waits until the metrics have `line`: what is counted at the end of an exchange comes a moment after the answer. */
async function counted({ metrics }: World, line: string | RegExp): Promise<string> {
  for (;;) {
    const text = await metrics.registry.metrics();
    if (typeof line === 'string' ? text.includes(line) : line.test(text)) return text;
    await new Promise(setImmediate);
  }
}

async function echo(request: Parameters<RequestListener>[0], response: Parameters<RequestListener>[1]) {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const { method, url, headers } = request;
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ method, url, headers, body: Buffer.concat(chunks).toString() }));
}

it('sends a picture to the predictor of that service and says which revision answered', async (world) => {
  await revision(world, 'a-1', 100, echo);
  const response = await fetch(`${world.url}:classify?top=3`, {
    method: 'POST',
    body: 'picture',
    headers: { 'content-type': 'image/png', 'x-request-id': '7' },
  });
  const seen = (await response.json()) as { method: string; url: string; headers: object; body: string };
  assert.is(response.headers.get('x-fovea-revision'), 'a-1');
  assert.equal([seen.method, seen.url, seen.body], ['POST', '/v1/models/a:classify?top=3', 'picture']);
  const { 'content-type': type, 'x-request-id': id, host } = seen.headers as Record<string, string>;
  assert.equal([type, id, `http://${host}`], ['image/png', '7', world.route.revisions[0]?.backends[0]?.origin]);
});

it('passes the Open Inference Protocol through below the path of the service', async (world) => {
  await revision(world, 'a-1', 100, echo);
  const seen = (await (await fetch(`${world.url}/v2/models/a`)).json()) as { method: string; url: string };
  assert.equal([seen.method, seen.url], ['GET', '/v2/models/a']);
});

it('sends no header of the connection on, nor one that the connection names', async (world) => {
  await revision(world, 'a-1', 100, echo);
  const request = send(`${world.url}:classify`, {
    method: 'POST',
    headers: { connection: 'x-private', 'x-private': '1', te: 'trailers', 'x-public': '2' },
  });
  request.end('p');
  const [response] = await once(request, 'response');
  const { headers } = JSON.parse((await response.toArray()).join(''));
  assert.equal([headers['x-private'], headers.te, headers['x-public']], [undefined, undefined, '2']);
});

it('lets a predictor’s refusal of something that is no picture through as it is', async (world) => {
  await revision(world, 'a-1', 100, (_request, response) => {
    response.writeHead(400, { 'content-type': 'application/json' });
    response.end('{"error":"UnsupportedFormat"}');
  });
  const response = await classify(world);
  assert.equal([response.status, await response.text()], [400, '{"error":"UnsupportedFormat"}']);
});

it('answers 404 for an unknown service and for an unknown path, and 405 for a method that makes no sense', async (world) => {
  await revision(world, 'a-1', 100, echo);
  const unknown = await fetch(world.url.replace(/a$/, 'b:classify'), { method: 'POST' });
  assert.equal([unknown.status, await unknown.json()], [404, { error: 'there is no InferenceService n/b' }]);
  assert.is((await fetch(`${world.url}/metrics`)).status, 404);
  const get = await fetch(`${world.url}:classify`);
  assert.equal([get.status, get.headers.get('allow')], [405, 'POST']);
  assert.is((await fetch(`${world.url}/v2/models/a`, { method: 'DELETE' })).status, 405);
});

it('answers 503 with Retry-After while there is no ready replica', async (world) => {
  const response = await classify(world);
  assert.equal([response.status, response.headers.get('retry-after')], [503, '1']);
  assert.match(await response.text(), /n\/a has no ready replica/);
});

it('refuses a body above the limit of the service, whether its length is said or not, and takes one at the limit', async (world) => {
  await revision(world, 'a-1', 100, echo);
  assert.is((await classify(world, Buffer.alloc(1000))).status, 200);
  assert.is((await classify(world, Buffer.alloc(1001))).status, 413);
  const request = send(`${world.url}:classify`, { method: 'POST' });
  request.write(Buffer.alloc(600));
  request.write(Buffer.alloc(600));
  const [response] = await once(request, 'response');
  assert.is(response.statusCode, 413);
  request.destroy();
});

it('tries another pod when one cannot be reached', async (world) => {
  await revision(world, 'a-1', 100, await closedOrigin(world), answers('good'));
  for (let i = 0; i < 10; i++) {
    const response = await classify(world);
    assert.equal([response.status, await response.text()], [200, 'good']);
  }
  await counted(world, /retries_total{.*reason="ECONNREFUSED"} \d/);
});

it('sends the whole body again to another pod when one breaks the connection before it answers', async (world) => {
  const broken = createTcpServer((socket) => socket.once('data', () => socket.destroy()));
  await revision(world, 'a-1', 100, await listening(world, broken));
  await revision(world, 'a-2', 1e-9, echo);
  const response = await classify(world, 'p'.repeat(900));
  assert.is(((await response.json()) as { body: string }).body, 'p'.repeat(900));
  assert.is(response.headers.get('x-fovea-revision'), 'a-2');
});

it('sends a request again whose connection was reset before anybody took it, as by a server that has just closed', async (world) => {
  let reset = 0;
  const closing = createTcpServer((socket) => {
    reset += 1;
    socket.resetAndDestroy();
  });
  await revision(world, 'a-1', 100, await listening(world, closing), answers('good'));
  for (let i = 0; i < 20; i++) assert.is(await (await classify(world)).text(), 'good');
  assert.ok(reset > 0);
});

it('begins with other pods for a while once one cannot be reached, and goes on trying it where there is no other', async (world) => {
  const [gone] = await revision(world, 'a-1', 100, await closedOrigin(world), answers('good'));
  while (gone!.avoidUntil === 0) await (await classify(world)).text();
  gone!.avoidUntil = Number.POSITIVE_INFINITY;
  const before = await counted(world, /retries_total{.*} \d/);
  const retries = (text: string) => /retries_total{.*} (\d+)/.exec(text)?.[1];
  for (let i = 0; i < 20; i++) assert.is(await (await classify(world)).text(), 'good');
  assert.is(retries(await counted(world, /retries_total{.*} \d/)), retries(before));
  world.route.revisions[0]!.backends.pop();
  const response = await classify(world);
  assert.equal([response.status, response.headers.get('retry-after')], [503, '1']);
  assert.match(await response.text(), /no replica of InferenceService n\/a can be reached \(ECONNREFUSED\)/);
});

it('goes to another pod after 503 with Retry-After, and returns the last refusal when all refuse', async (world) => {
  const full: RequestListener = (_request, response) => {
    response.writeHead(503, { 'retry-after': '7' });
    response.end('full');
  };
  await revision(world, 'a-1', 100, full, answers('good'));
  for (let i = 0; i < 10; i++) assert.is(await (await classify(world)).text(), 'good');
  world.route.revisions[0]!.backends.pop();
  const response = await classify(world);
  assert.equal([response.status, response.headers.get('retry-after'), await response.text()], [503, '7', 'full']);
});

it('does not repeat a request that was answered 500 or 503 without Retry-After', async (world) => {
  let asked = 0;
  const fails: RequestListener = (_request, response) => {
    asked += 1;
    response.writeHead(asked === 1 ? 500 : 503).end();
  };
  await revision(world, 'a-1', 100, fails, fails);
  assert.is((await classify(world)).status, 500);
  assert.is((await classify(world)).status, 503);
  assert.is(asked, 2);
});

it('does not repeat a request of whose answer the client has seen a part, but breaks off', async (world) => {
  let asked = 0;
  const breaks: RequestListener = (_request, response) => {
    asked += 1;
    response.writeHead(200, { 'content-length': '100' });
    response.write('half');
    setImmediate(() => response.destroy());
  };
  await revision(world, 'a-1', 100, breaks, breaks);
  const error = await classify(world)
    .then((response) => response.text())
    .catch((e) => e);
  assert.instance(error, Error);
  assert.is(asked, 1);
});

it('uses a pod that came while the request was under way', async (world) => {
  const origin = await listening(world, createServer(answers('new')));
  const breaks: RequestListener = (request) => {
    world.route = { ...world.route, revisions: [] };
    world.route.revisions.push({ name: 'a-2', weight: 100, backends: [openBackend({ uid: 'new', origin }, 'a-2')] });
    request.socket.destroy();
  };
  const [old] = await revision(world, 'a-1', 100, breaks);
  assert.is(await (await classify(world)).text(), 'new');
  await old!.pool.destroy();
});

it('answers 504 when the predictor takes longer than the service allows, and lets go of the pod', async (world) => {
  world.route.timeoutMilliseconds = 20;
  const gone = Promise.withResolvers<void>();
  const [backend] = await revision(world, 'a-1', 100, (request) => request.socket.once('close', () => gone.resolve()));
  const response = await classify(world);
  assert.is(response.status, 504);
  assert.match(await response.text(), /n\/a did not answer within 0.02 s/);
  await gone.promise;
  assert.is(backend?.inFlight, 0);
});

it('stops asking the predictor when the client has left', async (world) => {
  const asked = Promise.withResolvers<void>();
  const gone = Promise.withResolvers<void>();
  await revision(world, 'a-1', 100, (request) => {
    request.socket.once('close', () => gone.resolve());
    asked.resolve();
  });
  const client = new AbortController();
  const aborted = fetch(`${world.url}:classify`, { method: 'POST', body: 'p', signal: client.signal }).catch(
    () => 'left',
  );
  await asked.promise;
  client.abort();
  assert.is(await aborted, 'left');
  await gone.promise;
  await counted(world, /requests_total{.*code="499"} 1/);
});

it('sends to the pod with the fewest requests in flight', async (world) => {
  const waiting: (() => void)[] = [];
  const allCame = Promise.withResolvers<void>();
  const slow: RequestListener = (_request, response) => {
    if (waiting.push(() => response.end()) === 6) allCame.resolve();
  };
  const backends = await revision(world, 'a-1', 100, slow, slow, slow);
  const all = Array.from({ length: 6 }, () => classify(world));
  await allCame.promise;
  assert.equal(
    backends.map(({ inFlight }) => inFlight),
    [2, 2, 2],
  );
  for (const end of waiting) end();
  await Promise.all(all);
});

it('keeps connections to a pod for the next requests', async (world) => {
  const sockets = new Set<unknown>();
  await revision(world, 'a-1', 100, (request, response) => {
    sockets.add(request.socket);
    response.end('ok');
  });
  for (let i = 0; i < 5; i++) await (await classify(world)).text();
  assert.is(sockets.size, 1);
});

it('passes an answer larger than its buffers through whole, as it comes', async (world) => {
  const large = Buffer.alloc(8 * 2 ** 20, 'x');
  await revision(world, 'a-1', 100, (_request, response) => void response.end(large));
  assert.is((await (await classify(world)).arrayBuffer()).byteLength, large.length);
});

it('divides requests among revisions by weight', async (world) => {
  await revision(world, 'a-1', 75, answers('1'));
  await revision(world, 'a-2', 25, answers('2'));
  const seen = { 'a-1': 0, 'a-2': 0 } as Record<string, number>;
  for (let i = 0; i < 400; i++) {
    const response = await classify(world);
    seen[response.headers.get('x-fovea-revision')!]! += 1;
    await response.arrayBuffer();
  }
  // Binomial(400, 0.25): 100 ± 8.7; six deviations happen once in 10⁹ runs.
  assert.ok(Math.abs(seen['a-2']! - 100) < 53, JSON.stringify(seen));
});

it('finishes what is in flight when it drains, says so in readyz, and takes no new connection after', async (world) => {
  const asked = Promise.withResolvers<() => void>();
  await revision(world, 'a-1', 100, (_request, response) => asked.resolve(() => response.end('late')));
  const pending = classify(world);
  const finish = await asked.promise;
  const base = new URL('/', world.url).href;
  assert.is((await fetch(`${base}readyz`)).status, 200);
  const drained = world.gateway.drain(0, 20_000);
  const ready = await fetch(`${base}readyz`).catch(() => undefined);
  if (ready) assert.is(ready.status, 503);
  const refused = async () => {
    const socket = connect(world.gateway.port, '127.0.0.1');
    return once(socket, 'connect').then(
      () => socket.destroy() && false,
      () => true,
    );
  };
  while (!(await refused()));
  finish();
  const response = await pending;
  assert.equal([response.status, await response.text()], [200, 'late']);
  await drained;
});

it('tells how many requests there are, and their sum over time', async (world) => {
  const asked: (() => void)[] = [];
  const both = Promise.withResolvers<void>();
  await revision(world, 'a-1', 100, (_request, response) => {
    if (asked.push(() => response.end()) === 2) both.resolve();
  });
  const first = performance.now();
  const pending = [classify(world), classify(world)];
  await both.promise;
  await counted(world, 'fovea_gateway_requests_in_flight{namespace="n",service="a"} 2');
  const seconds = (text: string) => Number(/request_seconds_total{namespace="n",service="a"} (\S+)/.exec(text)?.[1]);
  const text = await counted(world, /request_seconds_total{.*} \d/);
  const measured = performance.now();
  assert.ok(seconds(text) <= (2 * (measured - first)) / 1000);
  // From when both were there until they are counted again.
  await new Promise((resolve) => setTimeout(resolve, 20));
  const later = seconds(await counted(world, /request_seconds_total{.*} \d/));
  assert.ok(later - seconds(text) >= 0.038, `${seconds(text)} ${later}`);
  for (const end of asked) end();
  await Promise.all(pending);
  await counted(world, 'fovea_gateway_requests_in_flight{namespace="n",service="a"} 0');
  const ended = seconds(await counted(world, /request_seconds_total{.*} \d/));
  assert.is(seconds(await counted(world, /request_seconds_total{.*} \d/)), ended, 'stands still when there are none');
});

it('counts requests by service, revision and code, and names no service that does not exist', async (world) => {
  await revision(world, 'a-1', 100, answers('ok'));
  await (await classify(world)).text();
  await (await fetch(world.url.replace(/a$/, 'stranger:classify'), { method: 'POST' })).text();
  await counted(world, 'requests_total{namespace="n",service="a",revision="a-1",code="200"} 1');
  await counted(world, 'requests_total{namespace="",service="",revision="",code="404"} 1');
  await counted(world, 'fovea_gateway_requests_in_flight{namespace="n",service="a"} 0');
  const text = await (await fetch(new URL('/metrics', world.url))).text();
  assert.not.match(text, 'stranger');
});

it.run();
