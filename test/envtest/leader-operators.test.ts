// timeout: 280
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RESOURCES } from '../../operator/api/object.ts';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { type KubeObject, LEASES } from '../../operator/kube/resources.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { freePorts } from '../cluster/ports.ts';
import { eventually } from '../eventually.ts';
import { changesOf, WRITES_POLICY, type Write, writesIn } from './audit.ts';
import { installKinds } from './kinds.ts';

const it = suite('two operators, one Lease');

const LEASE = 'fovea-operator';
/** Seconds of the Lease, and between two looks at it. */
const [LEASE_SECONDS, RETRY_SECONDS] = [15, 2];

interface Operator {
  child: ChildProcess;
  /** Sample values of /metrics by name; labels are left out. */
  metric(name: string): Promise<number | undefined>;
  identity(): Promise<string>;
}

let plane: ControlPlane;
let client: Client;
const operators: Operator[] = [];
let writing = true;
let written: Promise<void>;

/** Objects that the leader has to write for, made as long as the tests run. */
async function makeWork(): Promise<void> {
  for (let i = 0; writing; i++) {
    const digest = `sha256:${i.toString(16).padStart(64, '0')}`;
    await client.create(RESOURCES.datasets, {
      apiVersion: 'fovea.dev/v1alpha1',
      kind: 'Dataset',
      metadata: { name: `d${i}`, namespace: 'default' },
      spec: { source: { type: 'HTTP', http: { url: 'http://127.0.0.1/a.tar', digest } } },
    } as KubeObject);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function startOperator(): Promise<Operator> {
  const [port] = await freePorts(1);
  const child = spawn(process.execPath, ['operator/main.ts'], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, KUBECONFIG: plane.kubeconfig, INTAKE_PORT: '0', HEALTH_PORT: `${port}`, LOG_LEVEL: 'error' },
  });
  const operator: Operator = {
    child,
    async metric(name) {
      const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
      const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `));
      return line === undefined ? undefined : Number(line.split(' ')[1]);
    },
    // Only one leads at a time, so whoever leads is the holder.
    identity: () => eventually(async () => ((await operator.metric('fovea_leader')) === 1 ? holder() : undefined)),
  };
  operators.push(operator);
  await eventually(async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).status === 200);
  return operator;
}

async function holder(): Promise<string | undefined> {
  const lease = await client.get<KubeObject & { spec: { holderIdentity?: string } }>(LEASES, 'default', LEASE);
  return lease.spec.holderIdentity;
}

it.before(async () => {
  plane = await startControlPlane({ auditPolicy: WRITES_POLICY });
  client = await connect(loadConfig(plane.kubeconfig));
  await installKinds(client);
  written = makeWork();
});
it.after(async () => {
  writing = false;
  await written;
  for (const { child } of operators) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  }
  await client.close();
  await plane.stop();
});

const by = (identity: string) => (write: Write) => write.userAgent === `fovea-operator (${identity})`;
/** Writes that only a leader makes. The intake's Secrets are made by whoever comes first. */
const ofLeaders = (write: Write) =>
  write.userAgent.startsWith('fovea-operator') && !['leases', 'secrets'].includes(write.resource);

/** Waits until another than `before` holds the Lease and has written something; returns its identity. */
function successor(before: string): Promise<string> {
  return eventually(async () => {
    const now = await holder();
    if (!now || now === before) return undefined;
    const begun = (await writesIn(plane.auditLog)).some((write) => ofLeaders(write) && by(now)(write));
    return begun ? now : undefined;
  });
}

/** Every write was answered while its writer held the Lease, before another's request to take it came. */
async function assertFenced(): Promise<void> {
  const writes = await writesIn(plane.auditLog);
  const changes = changesOf(writes, LEASE);
  for (const write of writes.filter(ofLeaders)) {
    const last = changes.findLast(({ received }) => received <= write.answered);
    assert.ok(last?.holder && by(last.holder)(write), `${JSON.stringify(write)} while the Lease was ${last?.holder}’s`);
  }
}

let leader: Operator;
let follower: Operator;

it('on SIGTERM the leader ends its writes, releases the Lease, and the other goes on without waiting for it to run out', async () => {
  leader = await startOperator();
  const first = await leader.identity();
  follower = await startOperator();
  assert.is(await follower.metric('fovea_leader'), 0);
  await eventually(async () => (await writesIn(plane.auditLog)).filter(by(first)).filter(ofLeaders).length > 20);
  leader.child.kill('SIGTERM');
  const [code] = await once(leader.child, 'exit');
  assert.is(code, 0);
  const second = await successor(first);
  const changes = changesOf(await writesIn(plane.auditLog), LEASE);
  assert.equal(
    changes.map((change) => change.holder),
    [first, '', second],
  );
  const seconds = (changes[2].answered - changes[1].received) / 1000;
  assert.ok(seconds < RETRY_SECONDS, `taken ${seconds} s after it was released`);
  assert.is(await follower.metric('fovea_leader'), 1);
  await assertFenced();
});

it('after SIGKILL the Lease is taken when it has run out, not before and not much later', async () => {
  leader = follower;
  const before = (await holder()) ?? '';
  follower = await startOperator();
  leader.child.kill('SIGKILL');
  await once(leader.child, 'exit');
  const after = await successor(before);
  const writes = await writesIn(plane.auditLog);
  const last = writes.findLast((write) => write.holder === before)!;
  const taken = writes.find((write) => write.holder === after)!;
  const seconds = (taken.received - last.received) / 1000;
  assert.ok(
    seconds >= LEASE_SECONDS && seconds <= LEASE_SECONDS + RETRY_SECONDS,
    `taken ${seconds} s after the last renewal`,
  );
  await assertFenced();
});

it('a leader that was stopped for longer than its Lease writes nothing when it goes on, and can lead again', async () => {
  const stopped = follower;
  const before = (await holder()) ?? '';
  const other = await startOperator();
  await eventually(async () => (await writesIn(plane.auditLog)).filter(by(before)).filter(ofLeaders).length > 5);
  stopped.child.kill('SIGSTOP');
  const after = await successor(before);
  stopped.child.kill('SIGCONT');
  await eventually(async () => (await stopped.metric('fovea_leader')) === 0);
  // It is alive and sees what there is to do.
  const made = (await writesIn(plane.auditLog)).filter(({ resource }) => resource === 'datasets').length;
  await eventually(async () => {
    const writes = await writesIn(plane.auditLog);
    return writes.filter(({ resource }) => resource === 'datasets').length > made + 20;
  });
  await assertFenced();
  other.child.kill('SIGTERM');
  await once(other.child, 'exit');
  assert.is(await successor(after), before);
  await assertFenced();
});

it.run();
