import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { KubeServer, refuse, until } from '../../test/kube-server.ts';
import { type Client, connect } from './client.ts';
import { type ApiError, ConnectionError, isConflict, isNotFound, isTransient } from './errors.ts';
import { PODS } from './resources.ts';
import { Term, TermOver } from './term.ts';

const it = suite('client');

async function withServer(
  run: (server: KubeServer, client: Client, seen: [string, number][]) => Promise<void>,
): Promise<void> {
  await using server = await KubeServer.start();
  const seen: [string, number][] = [];
  const client = await connect(server.config, {
    observe: (verb, resource, code) => seen.push([`${verb} ${resource}`, code]),
  });
  try {
    await run(server, client, seen);
  } finally {
    await client.close();
  }
}

/** Fails the first `times` requests by `fault`, then answers `{}`. */
function failing(server: KubeServer, times: number, fault: Parameters<typeof refuse>[1] | 'cut', after?: string): void {
  let left = times;
  server.intercept = (_, response) => {
    if (left-- <= 0) {
      response.end('{}');
      return true;
    }
    if (fault !== 'cut') return refuse(response, fault, { reason: 'Fault' }, after ? { 'retry-after': after } : {});
    response.destroy();
    return true;
  };
}

it('asks again for what it reads when the server is overloaded, broken or gone for a moment', () =>
  withServer(async (server, client) => {
    for (const fault of [429, 500, 503, 'cut'] as const) {
      server.requests.length = 0;
      failing(server, 2, fault);
      await client.get(PODS, 'ns', 'a');
      assert.is(server.requests.length, 3, String(fault));
    }
  }));

it('sends a write again only if the server said that it did nothing', () =>
  withServer(async (server, client) => {
    const pod = { metadata: { name: 'a', namespace: 'ns' } };
    const writes: Record<string, () => Promise<unknown>> = {
      create: () => client.create(PODS, pod),
      replace: () => client.replace(PODS, pod),
      replaceStatus: () => client.replaceStatus(PODS, pod),
      patch: () => client.patch(PODS, 'ns', 'a', {}),
      delete: () => client.delete(PODS, 'ns', 'a'),
    };
    for (const [name, write] of Object.entries(writes)) {
      for (const fault of [500, 503, 'cut'] as const) {
        server.requests.length = 0;
        failing(server, 1, fault);
        const error = await write().catch((e: unknown) => e);
        assert.ok(isTransient(error), `${name} ${fault}: ${error}`);
        assert.is(server.requests.length, 1, `${name} ${fault}`);
      }
      failing(server, 1, 429);
      await write();
    }
  }));

it('gives up after four tries and says which request and what the server said', () =>
  withServer(async (server, client, seen) => {
    failing(server, 9, 500);
    const error = (await client.get(PODS, 'ns', 'a').catch((e: unknown) => e)) as ApiError;
    assert.is(error.message, 'GET /api/v1/namespaces/ns/pods/a: 500 Fault: no message');
    assert.equal(seen, Array(4).fill(['get pods', 500]));
  }));

it('waits as long as the server asks', () =>
  withServer(async (server, client) => {
    failing(server, 1, 429, '1');
    const started = performance.now();
    await client.get(PODS, 'ns', 'a');
    assert.ok(performance.now() - started >= 990);
  }));

it('does not repeat what was refused for good', () =>
  withServer(async (server, client) => {
    for (const [code, is] of [
      [404, isNotFound],
      [409, isConflict],
    ] as const) {
      server.requests.length = 0;
      server.intercept = (_, response) => refuse(response, code, { reason: code === 409 ? 'Conflict' : 'NotFound' });
      const error = await client.get(PODS, 'ns', 'a').catch((e: unknown) => e);
      assert.ok(is(error) && !isTransient(error));
      assert.is(server.requests.length, 1);
    }
  }));

it('presents its credentials, and once more when they are not accepted', () =>
  withServer(async (server, client) => {
    const tokens: unknown[] = [];
    server.intercept = (request, response) => {
      tokens.push(request.headers.authorization);
      if (tokens.length === 1) return refuse(response, 401, { reason: 'Unauthorized' });
      response.end('{}');
      return true;
    };
    await client.create(PODS, { metadata: { name: 'a', namespace: 'ns' } });
    assert.equal(tokens, ['Bearer secret', 'Bearer secret']);
  }));

const rejection = (promise: Promise<unknown>) => promise.catch((error: unknown) => error);
const SOON = 60_000;

it('begins no request after its term, and breaks off what is under way, a wait between two tries too', () =>
  withServer(async (server, client) => {
    const pod = { metadata: { name: 'a', namespace: 'ns' } };
    const begin: Record<string, (within: Client) => Promise<unknown>> = {
      create: (within) => within.create(PODS, pod),
      get: (within) => within.get(PODS, 'ns', 'a'),
      watch: (within) => within.watch(PODS, {}, '1', new AbortController().signal).next(),
    };
    for (const [name, request] of Object.entries(begin)) {
      for (const answer of ['none', 'overloaded'] as const) {
        if (name === 'watch' && answer === 'overloaded') continue;
        const term = new Term(performance.now() + SOON);
        const within = client.during(term);
        server.requests.length = 0;
        server.intercept = (_, response) => answer === 'none' || refuse(response, 429, {}, { 'retry-after': '5' });
        const asked = rejection(request(within));
        await until(() => server.requests.length === 1, `${name} is under way`);
        term.end('the test says so');
        assert.instance(await asked, TermOver, `${name}, ${answer}`);
        assert.instance(await rejection(request(within)), TermOver);
        assert.is(server.requests.length, 1, `${name}, ${answer}`);
      }
    }
  }));

it('asks its term when the request is about to be written, since a timer may be late', () =>
  withServer(async (server, client) => {
    const check = () => {
      throw new TermOver('the clock says so');
    };
    const within = client.during({ signal: new AbortController().signal, check });
    assert.instance(await rejection(within.create(PODS, { metadata: { name: 'a', namespace: 'ns' } })), TermOver);
    assert.equal(server.requests, []);
  }));

it('takes a page of a proxy for what it is', () =>
  withServer(async (server, client) => {
    server.intercept = (_, response) => {
      response.writeHead(404, { 'content-type': 'text/html' });
      response.end('<h1>Not here</h1>');
      return true;
    };
    const error = (await client.get(PODS, 'ns', 'a').catch((e: unknown) => e)) as ApiError;
    assert.match(error.message, /404 .*<h1>Not here<\/h1>/);
    server.intercept = (_, response) => {
      response.end('<h1>Welcome</h1>');
      return true;
    };
    assert.instance(await client.delete(PODS, 'ns', 'a').catch((e: unknown) => e), ConnectionError);
  }));

it('says which server did not answer', async () => {
  const server = await KubeServer.start();
  const { config } = server;
  await server[Symbol.asyncDispose]();
  const client = await connect(config);
  const error = (await client.get(PODS, 'ns', 'a').catch((e: unknown) => e)) as Error;
  assert.instance(error, ConnectionError);
  assert.match(error.message, /^GET \/api\/v1\/namespaces\/ns\/pods\/a: .*ECONNREFUSED/);
  await client.close();
});

it('puts names into paths as names, whatever is in them', () =>
  withServer(async (server, client) => {
    await client.get(PODS, 'ns', '../../secrets/x').catch(() => {});
    assert.is(server.requests[0], 'GET /api/v1/namespaces/ns/pods/..%2F..%2Fsecrets%2Fx');
    for (const [namespace, name] of [
      [undefined, 'a'],
      ['', 'a'],
      ['ns', ''],
    ] as const) {
      const error = await client.delete(PODS, namespace, name).catch((e: unknown) => e);
      assert.match(String(error), /a namespace is needed|without a name/);
    }
    assert.is(server.requests.length, 1);
  }));

it('tells kind and version of listed objects, which the server leaves out', () =>
  withServer(async (server, client) => {
    server.put('a');
    const { items } = await client.list(PODS, {});
    assert.equal([items[0].kind, items[0].apiVersion], ['Pod', 'v1']);
  }));

it('reads watch events however they are cut into packets', () =>
  withServer(async (server, client) => {
    const pod = server.put('grün');
    const line = Buffer.from(`${JSON.stringify({ type: 'ADDED', object: pod })}\n\n`);
    server.intercept = (_, response) => {
      response.flushHeaders();
      const bytes = Buffer.concat([line, line]);
      const next = (at: number): void => {
        if (at >= bytes.length) response.end('{"type":"ADD');
        else response.write(bytes.subarray(at, at + 1), () => setImmediate(next, at + 1));
      };
      next(0);
      return true;
    };
    const names: unknown[] = [];
    for await (const { object } of client.watch(PODS, {}, '1', new AbortController().signal)) {
      names.push(object.metadata?.name);
    }
    assert.equal(names, ['grün', 'grün'], 'the last line has no end and is no event');
  }));

it.run();
