import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import {
  type ApiError,
  isAlreadyExists,
  isConflict,
  isForbidden,
  isInvalid,
  isNotFound,
} from '../../operator/kube/errors.ts';
import { createRecorder } from '../../operator/kube/events.ts';
import { CONFIG_MAPS, EVENTS, type KubeObject, PODS, type Resource } from '../../operator/kube/resources.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { type FaultProxy, startFaultProxy } from './kube-proxy.ts';

const it = suite('client and events against an API server');

const NAMESPACES: Resource = { group: '', version: 'v1', plural: 'namespaces', kind: 'Namespace', namespaced: false };

type ConfigMap = KubeObject & { data?: Record<string, string> };
type Event = KubeObject & {
  count: number;
  reason: string;
  message: string;
  type: string;
  involvedObject: KubeObject['metadata'];
};

let plane: ControlPlane;
let client: Client;
let proxy: FaultProxy;
let unstable: Client;

it.before(async () => {
  plane = await startControlPlane();
  client = await connect(loadConfig(plane.kubeconfig));
  proxy = await startFaultProxy(plane.admin);
  unstable = await connect(proxy.config);
});
it.after(async () => {
  await unstable.close();
  await client.close();
  await proxy[Symbol.asyncDispose]();
  await plane.stop();
});
it.after.each(() => {
  proxy.fault = () => undefined;
});

async function namespace(name: string): Promise<string> {
  await client.create(NAMESPACES, { metadata: { name } });
  return name;
}

async function refusal(asked: Promise<unknown>): Promise<ApiError> {
  return (await asked.then(
    () => assert.unreachable('it was taken'),
    (error: unknown) => error,
  )) as ApiError;
}

const named = (ns: string, name: string, rest: object = {}): ConfigMap => ({
  metadata: { name, namespace: ns },
  ...rest,
});

it('creates once, reads, and deletes what it meant', async () => {
  const ns = await namespace('once');
  const made = await client.create<ConfigMap>(CONFIG_MAPS, named(ns, 'a', { data: { k: 'v' } }));
  assert.ok(isAlreadyExists(await refusal(client.create(CONFIG_MAPS, named(ns, 'a')))));
  assert.equal((await client.get<ConfigMap>(CONFIG_MAPS, ns, 'a')).data, { k: 'v' });

  assert.ok(isConflict(await refusal(client.delete(CONFIG_MAPS, ns, 'a', 'uid-of-an-earlier-one'))));
  await client.delete(CONFIG_MAPS, ns, 'a', made.metadata?.uid);
  const gone = await refusal(client.get(CONFIG_MAPS, ns, 'a'));
  assert.ok(isNotFound(gone));
  assert.is(gone.message, 'GET /api/v1/namespaces/once/configmaps/a: 404 NotFound: configmaps "a" not found');
});

it('writes a status only over the state that it was made from', async () => {
  const ns = await namespace('status');
  await client.create(
    { group: '', version: 'v1', plural: 'serviceaccounts', kind: 'ServiceAccount', namespaced: true },
    { metadata: { name: 'default', namespace: ns } },
  );
  const pod = await client.create(PODS, {
    metadata: { name: 'p', namespace: ns },
    spec: { containers: [{ name: 'c', image: 'i' }], automountServiceAccountToken: false },
  } as KubeObject);
  const status = (phase: string) => ({ ...pod, status: { phase } });
  const written = (await client.replaceStatus(PODS, status('Running'))) as KubeObject & { status: { phase: string } };
  assert.is(written.status.phase, 'Running');
  assert.ok(isConflict(await refusal(client.replaceStatus(PODS, status('Failed')))));
});

it('applies again without effect, and leaves to others what it does not say', async () => {
  const ns = await namespace('apply');
  const said = { apiVersion: 'v1', kind: 'ConfigMap', ...named(ns, 'a', { data: { ours: '1' } }) };
  const first = await client.apply<ConfigMap>(CONFIG_MAPS, said, 'test');
  const again = await client.apply<ConfigMap>(CONFIG_MAPS, said, 'test');
  assert.is(again.metadata?.resourceVersion, first.metadata?.resourceVersion);
  await client.patch(CONFIG_MAPS, ns, 'a', { data: { theirs: '2' } });
  assert.equal((await client.apply<ConfigMap>(CONFIG_MAPS, said, 'test')).data, { ours: '1', theirs: '2' });
});

it('says which field the server refused', async () => {
  const ns = await namespace('invalid');
  const error = await refusal(client.create(CONFIG_MAPS, named(ns, 'a', { data: { 'not a key': '' } })));
  assert.ok(isInvalid(error));
  assert.match(error.message, /data\[not a key\]/);
});

it('says what a user may not do', async () => {
  const { kubeconfig } = await plane.userOf({ user: 'nobody' });
  const nobody = await connect(loadConfig(kubeconfig));
  const error = await refusal(nobody.list(PODS, { namespace: 'default' }));
  assert.ok(isForbidden(error));
  assert.match(error.message, /User "nobody" cannot list resource "pods"/);
  await nobody.close();
});

it('applies again after a lost answer, and leaves a lost create to whoever decided it', async () => {
  const ns = await namespace('lost');
  let lose = 1;
  proxy.fault = () => (lose-- > 0 ? { type: 'LoseAnswer' } : undefined);
  await unstable.apply(CONFIG_MAPS, { apiVersion: 'v1', kind: 'ConfigMap', ...named(ns, 'a') }, 'test');
  lose = 1;
  await refusal(unstable.create(CONFIG_MAPS, named(ns, 'b')));
  assert.ok(isAlreadyExists(await refusal(unstable.create(CONFIG_MAPS, named(ns, 'b')))), 'the first was done');
});

async function subject(name: string): Promise<KubeObject & { apiVersion: string; kind: string }> {
  const made = await client.create(CONFIG_MAPS, named(await namespace(name), 'subject'));
  return { ...made, apiVersion: 'v1', kind: 'ConfigMap' };
}

async function eventsOf(ns: string): Promise<Event[]> {
  const { items } = await client.list<Event>(EVENTS, { namespace: ns });
  return items.sort((a, b) => a.message.localeCompare(b.message));
}

const never = (error: unknown) => {
  throw error;
};

it('events: the same said again raises a count, also by the next process', async () => {
  const about = await subject('counts');
  const [first, second] = [createRecorder(client, 'test', never), createRecorder(client, 'test', never)];
  for (let i = 0; i < 3; i++) first.record(about, { type: 'Normal', reason: 'Started', message: 'one' });
  first.record(about, { type: 'Warning', reason: 'Failed', message: 'two' });
  await first.flush();
  for (let i = 0; i < 2; i++) second.record(about, { type: 'Normal', reason: 'Started', message: 'one' });
  await second.flush();
  first.record(about, { type: 'Warning', reason: 'Failed', message: 'two' });
  await first.flush();
  const events = await eventsOf('counts');
  assert.equal(
    events.map(({ type, reason, message, count }) => [type, reason, message, count]),
    [
      ['Normal', 'Started', 'one', 5],
      ['Warning', 'Failed', 'two', 2],
    ],
  );
  assert.is(events[0].involvedObject?.uid, about.metadata?.uid);
});

it('events: an expired one is made anew', async () => {
  const about = await subject('expired');
  const recorder = createRecorder(client, 'test', never);
  const say = async () => {
    recorder.record(about, { type: 'Normal', reason: 'Started', message: 'one' });
    await recorder.flush();
  };
  await say();
  await client.delete(EVENTS, 'expired', (await eventsOf('expired'))[0].metadata?.name ?? '');
  await say();
  assert.equal(
    (await eventsOf('expired')).map(({ count }) => count),
    [2],
  );
});

it('events: a flood about one object is bounded, and does not silence others', async () => {
  const about = await subject('flood');
  const recorder = createRecorder(client, 'test', never);
  for (let i = 0; i < 200; i++) recorder.record(about, { type: 'Normal', reason: 'Noise', message: `n${i}` });
  const other = { ...about, metadata: { ...about.metadata, uid: 'other', name: 'other' } };
  recorder.record(other, { type: 'Normal', reason: 'Heard', message: 'a voice' });
  recorder.record(other, { type: 'Normal', reason: 'Long', message: 'x'.repeat(5000) });
  await recorder.flush();
  const events = await eventsOf('flood');
  assert.is(events.filter(({ reason }) => reason === 'Noise').length, 25);
  assert.is(events.filter(({ reason }) => reason === 'Heard').length, 1);
  assert.is(events.find(({ reason }) => reason === 'Long')?.message.length, 1024);
});

it('events: a server that does not answer costs the event, and nothing else', async () => {
  const about = await subject('unheard');
  const errors: unknown[] = [];
  const recorder = createRecorder(unstable, 'test', (error) => errors.push(error));
  proxy.fault = () => ({ type: 'Refuse' });
  recorder.record(about, { type: 'Normal', reason: 'Lost', message: 'one' });
  await recorder.flush();
  assert.is(errors.length, 1);
  proxy.fault = () => undefined;
  recorder.record(about, { type: 'Normal', reason: 'Lost', message: 'one' });
  await recorder.flush();
  assert.equal(
    (await eventsOf('unheard')).map(({ count }) => count),
    [2],
    'the lost one is counted',
  );
});

it.run();
