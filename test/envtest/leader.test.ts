import { once } from 'node:events';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { isNotFound } from '../../operator/kube/errors.ts';
import { type Election, type ElectionOptions, elect } from '../../operator/kube/leader.ts';
import { CONFIG_MAPS, type KubeObject, LEASES } from '../../operator/kube/resources.ts';
import { type Term, TermOver } from '../../operator/kube/term.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { eventually } from '../eventually.ts';
import { type FaultProxy, startFaultProxy } from './kube-proxy.ts';

const it = suite('leader election');

/** Short, in the proportions of the defaults. */
const TIMES = { lease: 3, renew: 2, retry: 0.4, windUp: 0.5 };

type Lease = KubeObject & {
  spec: {
    holderIdentity?: string;
    leaseDurationSeconds?: number;
    acquireTime?: string;
    renewTime?: string;
    leaseTransitions?: number;
  };
};

let plane: ControlPlane;
let client: Client;
let proxy: FaultProxy;
/** Through the proxy. */
let unstable: Client;
const elections: Election[] = [];

it.before(async () => {
  plane = await startControlPlane();
  client = await connect(loadConfig(plane.kubeconfig));
  proxy = await startFaultProxy(plane.admin);
  unstable = await connect(proxy.config);
});
it.after.each(async () => {
  proxy.fault = () => undefined;
  await Promise.all(elections.splice(0).map((election) => election.stop()));
});
it.after(async () => {
  await unstable.close();
  await client.close();
  await proxy[Symbol.asyncDispose]();
  await plane.stop();
});

interface Candidate {
  election: Election;
  /** Terms that were begun. */
  terms: Term[];
  errors: unknown[];
}

function stand(name: string, identity: string, options: Partial<ElectionOptions> = {}): Candidate {
  const terms: Term[] = [];
  const errors: unknown[] = [];
  const lead = async (term: Term) => {
    if (!term.windingUp.aborted) await once(term.windingUp, 'abort');
  };
  const election = elect({
    client,
    namespace: 'default',
    name,
    identity,
    onError: (error) => errors.push(error),
    times: TIMES,
    ...options,
    lead: (term) => {
      terms.push(term);
      return (options.lead ?? lead)(term);
    },
  });
  elections.push(election);
  return { election, terms, errors };
}

const lease = (name: string) => client.get<Lease>(LEASES, 'default', name);
const leads = ({ election }: Candidate) => eventually(async () => election.leads());

it('the first makes the Lease, renews it and is known to the others with its address', async () => {
  const first = stand('known', 'a', { annotations: { 'test/address': 'https://a' } });
  await leads(first);
  const made = await lease('known');
  assert.equal([made.spec.holderIdentity, made.spec.leaseDurationSeconds], ['a', TIMES.lease]);
  const second = stand('known', 'b');
  await eventually(async () => second.election.leader());
  assert.is(second.election.leader()?.identity, 'a');
  assert.is(second.election.leader()?.annotations['test/address'], 'https://a');
  await eventually(async () => ((await lease('known')).spec.renewTime ?? '') > (made.spec.renewTime ?? ''));
  assert.is((await lease('known')).spec.acquireTime, made.spec.acquireTime);
  assert.not(second.election.leads());
  assert.equal([first.terms.length, second.terms.length], [1, 0]);
});

it('of many that begin at once one leads', async () => {
  const all = Array.from({ length: 8 }, (_, i) => stand('many', `c${i}`));
  await eventually(async () => all.some(({ election }) => election.leads()));
  await eventually(async () => all.every(({ election }) => election.leader()));
  assert.is(all.flatMap(({ terms }) => terms).length, 1);
  assert.equal(
    all.flatMap(({ errors }) => errors),
    [],
    'to come second is no error',
  );
});

it('who stops releases the Lease and takes its address from it, and the next does not wait for its time', async () => {
  const first = stand('released', 'a', { annotations: { 'test/address': 'https://a' } });
  await leads(first);
  await first.election.stop();
  const free = await lease('released');
  assert.equal([free.spec.holderIdentity, free.metadata?.annotations ?? {}], ['', {}]);
  const second = stand('released', 'b');
  await leads(second);
  assert.is((await lease('released')).spec.leaseTransitions, 1 + (free.spec.leaseTransitions ?? 0));
});

it('a Lease is as old as it was seen unchanged, whatever times its holder wrote', async () => {
  const create = (name: string, time: string) =>
    client.create<Lease>(LEASES, {
      metadata: { name, namespace: 'default' },
      spec: { holderIdentity: 'gone', leaseDurationSeconds: 2, acquireTime: time, renewTime: time },
    });
  await create('ahead', '2099-01-01T00:00:00.000000Z');
  await create('behind', '1999-01-01T00:00:00.000000Z');
  const began = performance.now();
  const [ahead, behind] = [stand('ahead', 'a'), stand('behind', 'a')];
  await Promise.all([ahead, behind].map(leads));
  assert.ok(performance.now() - began >= 2000, 'not before it has lasted as long as it says');
});

it('a Lease that is renewed is not taken, nor one that somebody only annotates kept alive', async () => {
  let renewals = 0;
  const made = await client.create<Lease>(LEASES, {
    metadata: { name: 'alive', namespace: 'default' },
    spec: { holderIdentity: 'other', leaseDurationSeconds: 1 },
  });
  const candidate = stand('alive', 'a');
  while (renewals < 10) {
    renewals += 1;
    const spec = { ...made.spec, renewTime: new Date(renewals).toISOString().replace('Z', '000Z') };
    await client.patch(LEASES, 'default', 'alive', { spec });
    const seen = performance.now();
    await eventually(async () => performance.now() - seen > 250);
    assert.not(candidate.election.leads());
  }
  const annotate = async () =>
    client.patch(LEASES, 'default', 'alive', { metadata: { annotations: { n: `${performance.now()}` } } });
  await eventually(async () => (await annotate()) && candidate.election.leads());
});

it('a deleted Lease is not free before its time', async () => {
  const first = stand('deleted', 'a', { client: unstable });
  await leads(first);
  const second = stand('deleted', 'b');
  await eventually(async () => second.election.leader());
  // The first does not hear of it.
  proxy.fault = () => ({ type: 'Refuse' });
  proxy.cut();
  await client.delete(LEASES, 'default', 'deleted');
  const deleted = performance.now();
  await leads(second);
  assert.ok(first.terms[0].signal.aborted, 'its term was over before');
  assert.ok(performance.now() - deleted < (TIMES.lease + 2) * 1000);
});

it('who cannot renew stops before another leads: what it is writing is broken off, and it begins nothing', async () => {
  const outcomes: unknown[] = [];
  const first = stand('cut', 'a', {
    client: unstable,
    lead: async (term) => {
      const within = unstable.during(term);
      const map = (name: string) => ({ metadata: { name, namespace: 'default' } });
      await within.create(CONFIG_MAPS, map('in-time'));
      // From now on the server answers nobody who comes this way.
      proxy.fault = () => ({ type: 'Hold' });
      proxy.cut();
      outcomes.push(await within.create(CONFIG_MAPS, map('hangs')).catch((error) => error));
      outcomes.push(await within.create(CONFIG_MAPS, map('late')).catch((error) => error));
    },
  });
  await eventually(async () => first.terms.length === 1);
  let brokenOff: boolean | undefined;
  const second = stand('cut', 'b', {
    lead: async (term) => {
      brokenOff = outcomes.length === 2;
      await once(term.windingUp, 'abort');
    },
  });
  await leads(second);
  assert.ok(brokenOff, 'before the other leads');
  for (const outcome of outcomes) assert.instance(outcome, TermOver);
  proxy.fault = () => undefined;
  await client.get(CONFIG_MAPS, 'default', 'in-time');
  for (const name of ['hangs', 'late']) {
    assert.ok(isNotFound(await client.get(CONFIG_MAPS, 'default', name).catch((error) => error)), name);
  }
});

it('faults shorter than the term do not end it, lost answers neither', async () => {
  const first = stand('faulty', 'a', { client: unstable });
  await leads(first);
  const { renewTime = '' } = (await lease('faulty')).spec;
  let n = 0;
  const kinds = [
    { type: 'LoseAnswer' },
    { type: 'Refuse' },
    { type: 'Answer', code: 503, reason: 'ServiceUnavailable' },
    undefined,
    undefined,
  ] as const;
  proxy.fault = ({ isWatch }) => (isWatch ? undefined : kinds[n++ % kinds.length]);
  await eventually(async () => n > 16 && ((await lease('faulty')).spec.renewTime ?? '') > renewTime);
  proxy.fault = () => undefined;
  assert.is(first.terms.length, 1);
  assert.ok(first.election.leads());
  assert.ok(first.errors.length > 0, 'they are told');
});

it('who was away takes the Lease up again if nobody else did', async () => {
  const first = stand('away', 'a', { client: unstable });
  await leads(first);
  proxy.fault = () => ({ type: 'Refuse' });
  proxy.cut();
  await eventually(async () => !first.election.leads());
  proxy.fault = () => undefined;
  await leads(first);
  assert.is(first.terms.length, 2);
});

it('who finds the Lease in other hands stops at once', async () => {
  const first = stand('robbed', 'a');
  await leads(first);
  const spec = { holderIdentity: 'thief', leaseDurationSeconds: 60 };
  await client.patch(LEASES, 'default', 'robbed', { spec });
  await eventually(async () => first.terms[0].signal.aborted);
  assert.not(first.election.leads());
  assert.match((first.terms[0].signal.reason as Error).message, /is thief’s/);
});

it('work that does not end in time when told to is broken off, and the Lease is left to run out', async () => {
  const first = stand('slow', 'a', {
    lead: async (term) => {
      await once(term.signal, 'abort');
    },
  });
  await leads(first);
  await first.election.stop();
  assert.is((await lease('slow')).spec.holderIdentity, 'a');
});

it('refuses times with which two could lead', () => {
  assert.throws(() => stand('times', 'a', { times: { lease: 10, renew: 10 } }), /lease 10 s, renew 10 s, retry 2 s/);
});

it.run();
