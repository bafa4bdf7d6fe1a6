import { once } from 'node:events';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { type Election, elect } from '../../operator/kube/leader.ts';
import { type KubeObject, LEASES, PODS } from '../../operator/kube/resources.ts';
import { createLogger } from '../../operator/log.ts';
import { forwarder } from '../../operator/web/forward.ts';
import { operatorMetrics } from '../../operator/web/metrics.ts';
import { createRingDesk } from '../../operator/web/ring.ts';
import { startWeb, type Web } from '../../operator/web/server.ts';
import { INTAKE_AUDIENCE } from '../../trainer-image/contract.ts';
import { kubectlBinaries } from '../cluster/build.ts';
import { command } from '../cluster/command.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { eventually } from '../eventually.ts';

const it = suite('a follower’s intake');

const ADDRESS = 'test/intake';
const LEASE = 'forward';

/** What an operator is to a worker: an intake, and a candidate for the Lease. */
interface Replica {
  web: Web;
  election: Election;
  /** Stages reported, and uids of the pods that ask for a ring. */
  stages: string[];
  joins: string[];
  stop(): Promise<void>;
}

let plane: ControlPlane;
let client: Client;
let pod: KubeObject;
let bearer: string;
let leader: Replica;
let follower: Replica;

async function start(identity: string): Promise<Replica> {
  const stages: string[] = [];
  const joins: string[] = [];
  let election: Election | undefined;
  const leaders = forwarder({
    leader: () => {
      const holder = election?.leader();
      return holder?.identity === identity ? undefined : holder?.annotations[ADDRESS];
    },
    ca: () => web.caPem,
  });
  const web: Web = await startWeb({
    client,
    namespace: 'default',
    address: '127.0.0.1',
    hosts: [],
    intakePort: 0,
    healthPort: 0,
    ready: () => true,
    findPod: () => ({ uid: pod.metadata?.uid ?? '', labels: {} }),
    onProgress: (_reporter, { stage }) => stages.push(stage),
    rings: createRingDesk({
      seatOf: () => ({ key: 'default/job', jobUid: 'uid', membership: undefined }),
      onJoin: (key) => joins.push(key),
      pollSeconds: 0.2,
    }),
    leading: () => election?.leads() ?? false,
    forward: leaders.forward,
    metrics: operatorMetrics(),
    log: createLogger({ program: 'test', level: 'silent' }),
  });
  election = elect({
    client,
    namespace: 'default',
    name: LEASE,
    identity,
    annotations: { [ADDRESS]: `https://127.0.0.1:${web.intakePort}` },
    lead: async (term) => {
      if (!term.windingUp.aborted) await once(term.windingUp, 'abort');
    },
  });
  const standing = election;
  return {
    web,
    election: standing,
    stages,
    joins,
    stop: async () => {
      await standing.stop();
      await web.close();
      await leaders.close();
    },
  };
}

it.before(async () => {
  plane = await startControlPlane();
  client = await connect(loadConfig(plane.kubeconfig));
  const kubectl = join(await kubectlBinaries(), 'kubectl');
  const run = (...args: string[]) => command(kubectl, ['--kubeconfig', plane.kubeconfig, ...args]);
  await run('create', 'serviceaccount', 'worker');
  pod = await client.create(PODS, {
    metadata: { name: 'worker', namespace: 'default' },
    spec: { serviceAccountName: 'worker', containers: [{ name: 'c', image: 'none' }] },
  } as KubeObject);
  const bound = ['--bound-object-kind=Pod', '--bound-object-name=worker', `--bound-object-uid=${pod.metadata?.uid}`];
  bearer = (await run('create', 'token', 'worker', `--audience=${INTAKE_AUDIENCE}`, ...bound)).trim();
  leader = await start('a');
  await eventually(async () => leader.election.leads());
  follower = await start('b');
  await eventually(async () => follower.election.leader());
});
it.after(async () => {
  await follower.stop();
  await client.close();
  await plane.stop();
});

async function ask(
  { web }: Replica,
  path: string,
  body: object,
  token = bearer,
): Promise<[number, { reason?: string }]> {
  const dispatcher = new Agent({ connect: { ca: web.caPem } });
  try {
    const answer = await request(`https://127.0.0.1:${web.intakePort}${path}`, {
      dispatcher,
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const text = await answer.body.text();
    return [answer.statusCode, text === '' ? {} : JSON.parse(text)];
  } finally {
    await dispatcher.close();
  }
}

it('passes progress and joins on to the leader, with the worker’s token, and the answer back', async () => {
  assert.equal(await ask(follower, '/v1/progress', { stage: 'training', percent: 1 }), [204, {}]);
  assert.equal([leader.stages, follower.stages], [['training'], []]);
  assert.equal(await ask(follower, '/v1/ring', { after: 0 }), [204, {}], 'held by the leader, then asked to ask again');
  assert.equal([leader.joins, follower.joins], [['default/job'], []]);
});

it('passes nothing of a stranger on', async () => {
  const [status] = await ask(follower, '/v1/progress', { stage: 'forged', percent: 1 }, 'no token');
  assert.is(status, 401);
  assert.not(leader.stages.includes('forged'));
});

it('gives no token to an address on the Lease that is not of our authority', async () => {
  const other = await startControlPlane();
  const { annotations } = (await client.get<KubeObject>(LEASES, 'default', LEASE)).metadata ?? {};
  const lie = (address?: string) =>
    client.patch(LEASES, 'default', LEASE, { metadata: { annotations: { [ADDRESS]: address } } });
  try {
    // It speaks TLS, with a certificate of another authority.
    await eventually(async () => {
      await lie(other.server);
      return follower.election.leader()?.annotations[ADDRESS] === other.server;
    });
    const [status, { reason }] = await ask(follower, '/v1/progress', { stage: 'training', percent: 2 });
    assert.equal([status, reason], [503, 'NoLeader']);
  } finally {
    await other.stop();
    await lie(annotations?.[ADDRESS]);
  }
});

it('does not pass round in a circle what each takes the other to answer', async () => {
  // The leader has stopped, and for the moment the Lease names it still.
  const { leads } = leader.election;
  leader.election.leads = () => false;
  leader.election.leader = () => ({
    identity: 'b',
    annotations: { [ADDRESS]: `https://127.0.0.1:${follower.web.intakePort}` },
  });
  const [status, { reason }] = await ask(follower, '/v1/progress', { stage: 'round', percent: 3 });
  assert.equal([status, reason], [503, 'NoLeader']);
  leader.election.leads = leads;
});

it('answers itself when it has taken over', async () => {
  await leader.stop();
  await eventually(async () => follower.election.leads());
  assert.equal(await ask(follower, '/v1/progress', { stage: 'later', percent: 4 }), [204, {}]);
  assert.equal(follower.stages, ['later']);
});

it.run();
