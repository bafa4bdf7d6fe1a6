import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Cache } from './cache.ts';
import type { KubeObject } from './resources.ts';

const it = suite('cache');

const pod = (name: string, labels: Record<string, string> = {}, namespace = 'ns'): KubeObject => ({
  metadata: { name, namespace, labels },
});
const byApp = { app: (object: KubeObject) => [object.metadata?.labels?.app ?? []].flat() };

it('finds objects by namespace and name, and clusters’ own by name', () => {
  const cache = new Cache();
  cache.set(pod('a'));
  cache.set({ metadata: { name: 'node' } });
  assert.is(cache.get('ns/a')?.metadata?.name, 'a');
  assert.is(cache.get('node')?.metadata?.name, 'node');
  assert.is(cache.get('other/a'), undefined);
  assert.is(cache.list().length, 2);
});

it('tells what an object was before, and what it was when it went', () => {
  const cache = new Cache();
  assert.is((cache.set(pod('a')) as { before?: unknown }).before, undefined);
  const change = cache.set(pod('a', { app: 'x' }));
  assert.equal(change, { type: 'set', object: pod('a', { app: 'x' }), before: pod('a') });
  assert.equal(cache.delete('ns/a'), { type: 'delete', object: pod('a', { app: 'x' }) });
  assert.is(cache.delete('ns/a'), undefined);
});

it('finds objects by index, also after they changed or went', () => {
  const cache = new Cache(byApp);
  cache.set(pod('a', { app: 'x' }));
  cache.set(pod('b', { app: 'x' }));
  cache.set(pod('c'));
  const names = (value: string) => cache.by('app', value).map((object) => object.metadata?.name);
  assert.equal(names('x'), ['a', 'b']);
  cache.set(pod('a', { app: 'y' }));
  cache.delete('ns/b');
  assert.equal(names('x'), []);
  assert.equal(names('y'), ['a']);
});

it('says that there is no such index instead of finding nothing', () => {
  assert.throws(() => new Cache(byApp).by('owner', 'x'), /there is no index owner/);
});

it('keeps what it had if an indexer throws', () => {
  const cache = new Cache({
    strict: (object: KubeObject) => {
      if (object.metadata?.labels?.bad) throw new Error('bad');
      return ['all'];
    },
  });
  cache.set(pod('a'));
  assert.throws(() => cache.set(pod('a', { bad: 'yes' })), /bad/);
  assert.equal(cache.by('strict', 'all'), [pod('a')]);
});

it('refuses that a reader changes what all share', () => {
  const cache = new Cache();
  cache.set(pod('a', { app: 'x' }));
  assert.throws(() => {
    cache.get('ns/a')!.metadata!.labels!.app = 'y';
  }, /read only/);
});

it.run();
