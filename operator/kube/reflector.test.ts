import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { KubeServer, refuse, until } from '../../test/kube-server.ts';
import { type Client, connect } from './client.ts';
import { type Reflector, type ReflectorOptions, reflect } from './reflector.ts';
import { type KubeObject, PODS } from './resources.ts';

const it = suite('reflector');

interface Bench {
  server: KubeServer;
  client: Client;
  reflector: Reflector<KubeObject>;
  /** What handlers were told: `set a`, `delete a`. */
  changes: string[];
  errors: unknown[];
  /** The cache holds what the server has. */
  equal(): boolean;
}

/** Runs with a reflector that is synced and watches, unless `prepare` makes that impossible. */
async function withReflector(
  run: (bench: Bench) => Promise<void>,
  options: Partial<ReflectorOptions<KubeObject>> & { prepare?: (server: KubeServer) => void; wait?: boolean } = {},
): Promise<void> {
  await using server = await KubeServer.start();
  const { prepare, wait = true, ...rest } = options;
  prepare?.(server);
  const client = await connect(server.config);
  const changes: string[] = [];
  const errors: unknown[] = [];
  const reflector = reflect<KubeObject>(client, {
    resource: PODS,
    onChange: ({ type, object }) => changes.push(`${type} ${object.metadata?.name}`),
    onError: (error) => errors.push(error),
    ...rest,
  });
  const state = (objects: Iterable<KubeObject>) =>
    [...objects]
      .map((o) => `${o.metadata?.uid}@${o.metadata?.resourceVersion}`)
      .sort()
      .join();
  const equal = () => state(reflector.cache.list()) === state(server.pods.values());
  try {
    if (wait) {
      await reflector.synced;
      await until(() => server.watching > 0, 'the watch is open');
    }
    await run({ server, client, reflector, changes, errors, equal });
  } finally {
    await reflector.stop();
    await client.close();
  }
}

const LIST = /GET \/api\/v1\/pods\?limit=500/;
const WATCH = /watch=true/;

it('reads a list in pages and follows what changes', () =>
  withReflector(
    async ({ server, reflector, changes, equal }) => {
      assert.ok(reflector.hasSynced());
      assert.is(server.count(LIST), 3);
      assert.is(reflector.cache.list().length, 1200);
      changes.length = 0;
      server.put('new');
      server.put('p7', { state: 'changed' });
      server.remove('p8');
      await until(equal, 'the cache equals the server');
      assert.equal(changes, ['set new', 'set p7', 'delete p8']);
    },
    {
      prepare: (server) => {
        for (let i = 0; i < 1200; i++) server.put(`p${i}`);
      },
    },
  ));

it('goes on from where it was after a watch ended, broke or was cut in the middle of an event', () =>
  withReflector(async ({ server, equal, changes }) => {
    for (const stop of [() => server.end(), () => server.cut(), () => server.cut('{"type":"ADDED","obj')]) {
      stop();
      server.put('a', { n: String(changes.length) });
      await until(() => equal() && server.watching > 0, 'the cache follows again');
    }
    assert.is(server.count(LIST), 1, 'nothing was listed again');
    assert.equal(changes, ['set a', 'set a', 'set a'], 'nothing was told twice');
  }));

it('lists again when the server no longer has what comes after, and tells what went meanwhile', () =>
  withReflector(
    async ({ server, equal, changes }) => {
      server.cut();
      server.remove('a');
      server.put('b', { state: 'changed' });
      server.remove('c');
      server.put('c');
      server.compact();
      changes.length = 0;
      await until(() => equal() && server.watching > 0, 'the cache equals the server');
      assert.equal(changes.sort(), ['delete a', 'delete c', 'set b', 'set c']);
      assert.is(server.count(LIST), 2);
    },
    {
      prepare: (server) => {
        for (const name of ['a', 'b', 'c', 'same']) server.put(name);
      },
    },
  ));

it('tells the last state of an object that was deleted while nobody watched', async () => {
  const gone: unknown[] = [];
  await withReflector(
    async ({ server }) => {
      server.cut();
      server.remove('a');
      server.compact();
      await until(() => gone.length > 0, 'its deletion is told');
      assert.equal(gone, [{ n: '1' }]);
    },
    {
      prepare: (server) => server.put('a', { n: '1' }),
      onChange: ({ type, object }) => {
        if (type === 'delete') gone.push(object.metadata?.labels);
      },
    },
  );
});

it('tells of an object made again under its name that the old one went', () =>
  withReflector(async ({ server, changes, equal }) => {
    server.put('a');
    await until(equal, 'a is there');
    const old = server.pods.get('default/a')!;
    const metadata = { ...old.metadata, uid: 'another', resourceVersion: '90' };
    server.send({ type: 'MODIFIED', object: { ...old, metadata } });
    await until(() => changes.length === 3, 'the change is told');
    assert.equal(changes, ['set a', 'delete a', 'set a']);
  }));

it('is not taken back by events that come twice, late or in the wrong order', () =>
  withReflector(async ({ server, changes, equal }) => {
    const first = server.put('a', { n: '1' });
    const second = server.put('a', { n: '2' });
    server.remove('a');
    const again = server.put('b', { n: '1' });
    const later = server.put('b', { n: '2' });
    await until(equal, 'the cache equals the server');
    changes.length = 0;
    server.send({ type: 'ADDED', object: first });
    server.send({ type: 'MODIFIED', object: second });
    server.send({ type: 'ADDED', object: again });
    server.send({ type: 'MODIFIED', object: later });
    server.send({ type: 'DELETED', object: again });
    server.put('end');
    await until(() => changes.includes('set end'), 'the last event is told');
    assert.equal(changes, ['set end']);
    assert.ok(equal());
  }));

it('takes an event that is new to its object although another object’s newer one came before', () =>
  withReflector(async ({ server, reflector }) => {
    const pod = (name: string, resourceVersion: string) => ({
      metadata: { name, namespace: 'default', uid: name, resourceVersion },
    });
    server.send({ type: 'ADDED', object: pod('late', '50') });
    server.send({ type: 'ADDED', object: pod('early', '49') });
    await until(() => reflector.cache.list().length === 2, 'both are there');
  }));

it('does not go back in time for an event that came late', () =>
  withReflector(async ({ server, reflector }) => {
    for (let i = 0; i < 5; i++) server.put('a', { n: String(i) });
    const metadata = { name: 'late', namespace: 'default', uid: 'late', resourceVersion: '2' };
    server.send({ type: 'ADDED', object: { metadata } });
    server.put('b');
    server.send({ type: 'ADDED', object: { metadata: { ...metadata, resourceVersion: '4' } } });
    server.end();
    await until(() => server.count(WATCH) === 2, 'it watches again');
    assert.match(server.requests.findLast((request) => WATCH.test(request)) ?? '', /resourceVersion=7&/);
    assert.ok(reflector.cache.get('default/b'));
  }));

it('moves on by bookmarks, so that what a quiet watch has reached is not too old when it ends', () =>
  withReflector(
    async ({ server, errors }) => {
      for (let i = 0; i < 5; i++) server.put('elsewhere', {}, 'other');
      server.bookmark();
      server.compact();
      server.end();
      await until(() => server.count(WATCH) === 2 && server.watching > 0, 'it watches again');
      assert.is(server.count(/namespaces\/mine\/pods\?limit=500/), 1);
      assert.equal(errors, []);
    },
    { namespaces: ['mine'] },
  ));

it('takes a silent watch for dead and starts another, without a list', () =>
  withReflector(
    async ({ server, errors }) => {
      await until(() => server.count(WATCH) >= 2, 'it watches anew');
      assert.is(server.count(LIST), 1);
      assert.equal(errors, []);
    },
    { silenceSeconds: 0.05 },
  ));

it('keeps a watch that is not silent', () =>
  withReflector(
    async ({ server }) => {
      const started = performance.now();
      let sent = 0;
      await until(() => {
        if (performance.now() - started > sent * 50) sent += Number(server.bookmark() ?? 1);
        return performance.now() - started > 600;
      }, 'time has passed');
      assert.is(server.count(WATCH), 1);
    },
    { silenceSeconds: 0.3 },
  ));

it('lists again when the server turns out to be another, with a history of its own', () =>
  withReflector(async ({ server, equal, changes }) => {
    for (let i = 0; i < 20; i++) server.put('a', { n: String(i) });
    await until(equal, 'the cache equals the server');
    server.reset();
    server.put('b');
    server.cut();
    await until(() => equal() && server.watching > 0, 'the cache equals the new server');
    assert.is(changes.at(-1), 'delete a');
  }));

it('goes through a storm of faults, and asks ever less often', () =>
  withReflector(
    async ({ server, reflector, equal, errors }) => {
      assert.not(reflector.hasSynced());
      await until(() => reflector.hasSynced() && equal(), 'the cache equals the server', 20);
      assert.is(errors.length, 1, 'four tries are one failure');
      const started = performance.now();
      server.intercept = (_, response) => {
        response.destroy();
        return true;
      };
      server.cut();
      const before = server.requests.length;
      await until(() => performance.now() - started > 800, 'time has passed');
      server.intercept = () => false;
      assert.ok(server.requests.length - before <= 12, `${server.requests.length - before} requests in 0.8 s`);
      server.put('after');
      await until(equal, 'the cache equals the server', 20);
    },
    {
      wait: false,
      prepare: (server) => {
        server.put('a');
        let left = 6;
        server.intercept = (_, response) => {
          left -= 1;
          if (left < 0) return false;
          if (left % 3 === 0) return refuse(response, 500, { reason: 'InternalError' });
          if (left % 3 === 1) return refuse(response, 429, { reason: 'TooManyRequests' });
          response.destroy();
          return true;
        };
      },
    },
  ));

it('does not ask again at once when each watch ends at once', () =>
  withReflector(async ({ server }) => {
    server.intercept = (request, response) => {
      if (!WATCH.test(request.url ?? '')) return false;
      response.end();
      return true;
    };
    server.end();
    const before = server.count(WATCH);
    const started = performance.now();
    await until(() => performance.now() - started > 1000, 'time has passed');
    assert.ok(server.count(WATCH) - before <= 5, `${server.count(WATCH) - before} watches in a second`);
  }));

it('waits with a watch as long as an overloaded server asks', () =>
  withReflector(async ({ server, equal }) => {
    const times: number[] = [];
    server.intercept = (request, response) => {
      if (!WATCH.test(request.url ?? '')) return false;
      times.push(performance.now());
      return times.length === 1 && refuse(response, 429, { reason: 'TooManyRequests' }, { 'retry-after': '1' });
    };
    server.cut();
    server.put('a');
    await until(equal, 'the cache equals the server');
    assert.ok(times[1] - times[0] >= 990, `${times[1] - times[0]} ms`);
  }));

it('starts over with one whole list when the pages take longer than the server remembers', () =>
  withReflector(
    async ({ server, reflector }) => {
      assert.is(reflector.cache.list().length, 1200);
      assert.is(server.requests[2], 'GET /api/v1/pods');
    },
    {
      prepare: (server) => {
        for (let i = 0; i < 1200; i++) server.put(`p${i}`);
        server.intercept = (request, response) =>
          request.url?.includes('continue=') ? refuse(response, 410, { reason: 'Expired' }) : false;
      },
    },
  ));

it('watches the given namespaces alone, and one of them does not disturb another', () =>
  withReflector(
    async ({ server, reflector }) => {
      await until(() => server.watching === 2, 'both are watched');
      server.put('d', {}, 'three');
      server.put('c', {}, 'two');
      await until(() => reflector.cache.get('two/c') !== undefined, 'c is there');
      server.compact();
      server.put('e', {}, 'one');
      server.cut();
      await until(() => reflector.cache.get('one/e') !== undefined && server.watching === 2, 'both are watched again');
      assert.equal(
        reflector.cache
          .list()
          .map((o) => o.metadata?.name)
          .sort(),
        ['a', 'b', 'c', 'e'],
      );
      assert.is(server.count(/GET \/api\/v1\/pods/), 0);
    },
    {
      namespaces: ['one', 'two', 'one'],
      prepare: (server) => {
        server.put('a', {}, 'one');
        server.put('b', {}, 'two');
      },
    },
  ));

it('is synced when the lists of all its namespaces are read', () =>
  withReflector(
    async ({ server, reflector }) => {
      let synced = false;
      reflector.synced.then(() => {
        synced = true;
      });
      await until(() => server.count(/two.*watch=true/) === 1, 'the other namespace is watched');
      assert.not(reflector.hasSynced());
      assert.not(synced);
      server.intercept = () => false;
      await until(() => synced, 'it is synced');
      assert.ok(reflector.hasSynced());
    },
    {
      wait: false,
      namespaces: ['one', 'two'],
      prepare: (server) => {
        server.intercept = (request, response) => Boolean(request.url?.includes('/one/')) && refuse(response, 503);
      },
    },
  ));

it('passes on the selectors, to lists and watches', () =>
  withReflector(
    async ({ server }) => {
      for (const request of server.requests)
        assert.match(request, /labelSelector=app%3Dx&fieldSelector=spec.nodeName%3Dn/);
    },
    { select: { labelSelector: 'app=x', fieldSelector: 'spec.nodeName=n' } },
  ));

it('drops managed fields and the last applied configuration', () =>
  withReflector(
    async ({ reflector }) => {
      const { metadata } = reflector.cache.get('default/a')!;
      assert.equal(metadata?.annotations, { keep: 'me' });
      assert.is(metadata?.managedFields, undefined);
    },
    {
      prepare: (server) => {
        Object.assign(server.put('a').metadata, {
          managedFields: [{ manager: 'kubectl' }],
          annotations: { keep: 'me', 'kubectl.kubernetes.io/last-applied-configuration': '{}' },
        });
      },
    },
  ));

it('drops what it is told that nobody reads, of lists and of watches', () =>
  withReflector(
    async ({ server, reflector, equal }) => {
      server.put('b', { heavy: 'x', light: 'y' });
      await until(equal, 'the cache equals the server');
      for (const { metadata } of reflector.cache.list()) assert.equal(metadata?.labels, { light: 'y' });
      assert.is(reflector.cache.list().length, 2);
    },
    {
      prune: ({ metadata }) => delete metadata?.labels?.heavy,
      prepare: (server) => server.put('a', { heavy: 'x', light: 'y' }),
    },
  ));

it('goes on when a handler throws, and reports it', () =>
  withReflector(
    async ({ server, equal, errors }) => {
      server.put('a');
      server.put('b');
      await until(() => equal() && errors.length === 2, 'the cache equals the server');
      assert.is(server.count(WATCH), 1);
    },
    {
      onChange: () => {
        throw new Error('of the handler');
      },
    },
  ));

it('stops in the middle of a list, a watch or a wait', async () => {
  await using server = await KubeServer.start();
  const client = await connect(server.config);
  server.intercept = () => true;
  const listing = reflect(client, { resource: PODS });
  await until(() => server.requests.length === 1, 'it lists');
  await listing.stop();
  server.intercept = (_, response) => refuse(response, 403);
  let failed = false;
  const waiting = reflect(client, {
    resource: PODS,
    onError: () => {
      failed = true;
    },
  });
  await until(() => failed, 'it failed');
  await waiting.stop();
  assert.not(waiting.hasSynced());
  await client.close();
});

it.run();
