import { once } from 'node:events';
import { request } from 'node:https';
import { join } from 'node:path';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { type KubeObject, PODS, SECRETS } from '../../operator/kube/resources.ts';
import { createLogger } from '../../operator/log.ts';
import { loadAuthority } from '../../operator/web/authority.ts';
import { operatorMetrics } from '../../operator/web/metrics.ts';
import { createRingDesk } from '../../operator/web/ring.ts';
import { startWeb, type Web } from '../../operator/web/server.ts';
import { INTAKE_AUDIENCE } from '../../trainer-image/contract.ts';
import { kubectlBinaries } from '../cluster/build.ts';
import { command } from '../cluster/command.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';

const it = suite('intake before a real API server');

let plane: ControlPlane;
let client: Client;
let kubectl: (...args: string[]) => Promise<string>;
let pod: KubeObject;
let web: Web;
const stages: string[] = [];

function start(): Promise<Web> {
  return startWeb({
    client,
    namespace: 'default',
    address: '127.0.0.1',
    hosts: [],
    intakePort: 0,
    healthPort: 0,
    ready: () => true,
    findPod: (namespace, name) =>
      namespace === 'default' && name === 'worker' ? { uid: pod.metadata?.uid ?? '', labels: {} } : undefined,
    onProgress: (_reporter, { stage }) => stages.push(stage),
    rings: createRingDesk({
      seatOf: () => ({ refused: { status: 403, reason: 'NoWorker', message: 'no worker' } }),
      onJoin: () => {},
    }),
    metrics: operatorMetrics(),
    log: createLogger({ program: 'test', level: 'silent' }),
  });
}

it.before(async () => {
  plane = await startControlPlane();
  client = await connect(loadConfig(plane.kubeconfig));
  const binary = join(await kubectlBinaries(), 'kubectl');
  kubectl = (...args) => command(binary, ['--kubeconfig', plane.kubeconfig, ...args]);
  await kubectl('create', 'serviceaccount', 'worker');
  await client.create(PODS, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'worker', namespace: 'default' },
    spec: { serviceAccountName: 'worker', containers: [{ name: 'c', image: 'none' }] },
  } as KubeObject);
  pod = await client.get(PODS, 'default', 'worker');
  web = await start();
});
it.after(async () => {
  await web.close();
  await client.close();
  await plane.stop();
});

/** A token as the kubelet projects it into the pod. */
async function token(audience: string, bound = true): Promise<string> {
  const to = ['--bound-object-kind=Pod', '--bound-object-name=worker', `--bound-object-uid=${pod.metadata?.uid}`];
  return (await kubectl('create', 'token', 'worker', `--audience=${audience}`, ...(bound ? to : []))).trim();
}

async function report(bearer: string, stage = 'training'): Promise<number | undefined> {
  const sent = request(`https://127.0.0.1:${web.intakePort}/v1/progress`, {
    method: 'POST',
    ca: web.caPem,
    headers: { authorization: `Bearer ${bearer}`, 'content-type': 'application/json' },
    agent: false,
  });
  sent.end(JSON.stringify({ stage, percent: 1 }));
  const [response] = await once(sent, 'response');
  response.resume();
  await once(response, 'end');
  return response.statusCode;
}

it('takes the token that the API server makes for a pod, and none for another purpose', async () => {
  assert.is(await report(await token(INTAKE_AUDIENCE), 'packing'), 204);
  assert.equal(stages, ['packing']);
  assert.is(await report(await token('https://kubernetes.default.svc')), 401);
  assert.is(await report(await token(INTAKE_AUDIENCE, false)), 403);
  assert.is(stages.length, 1);
});

it('keeps its authority over a restart, and makes another only when the Secret is gone', async () => {
  const before = web.caPem;
  await web.close();
  web = await start();
  assert.is(web.caPem, before);
  await client.delete(SECRETS, 'default', 'fovea-intake-tls');
  await web.close();
  web = await start();
  assert.is.not(web.caPem, before);
});

it('takes over the authority that another operator makes at the same time', async () => {
  await client.delete(SECRETS, 'default', 'fovea-intake-tls');
  const [one, other] = await Promise.all([start(), start()]);
  assert.is(one.caPem, other.caPem);
  await Promise.all([one.close(), other.close()]);
});

it('agrees on one ring key with whoever makes it at the same time, also beside an authority from before', async () => {
  const load = (years = 0) => loadAuthority(client, 'default', Date.now() + years * 365 * 86_400_000);
  await client.delete(SECRETS, 'default', 'fovea-intake-tls');
  const [one, other] = await Promise.all([load(), load()]);
  assert.equal([one.ringKey.length, one.ringKey], [32, other.ringKey]);

  const renewed = await load(9.5);
  assert.is.not(renewed.certificate, one.certificate);
  assert.equal(renewed.ringKey, one.ringKey, 'a renewed authority keeps it');

  await client.patch(SECRETS, 'default', 'fovea-intake-tls', { data: { 'ring.key': null } });
  const [third, fourth] = await Promise.all([load(), load()]);
  assert.equal([third.ringKey.length, third.ringKey], [32, fourth.ringKey]);
  assert.is(third.certificate, renewed.certificate);
  assert.is.not(Buffer.compare(third.ringKey, one.ringKey), 0);
});

it('names a Secret that holds something else', async () => {
  const secret = await client.get<KubeObject>(SECRETS, 'default', 'fovea-intake-tls');
  await client.replace(SECRETS, { ...secret, data: { 'tls.crt': '', 'tls.key': '' } } as KubeObject);
  const error = await start().catch((e) => e);
  assert.match(error.message, 'Secret default/fovea-intake-tls holds no certificate authority');
  await client.delete(SECRETS, 'default', 'fovea-intake-tls');
});

it('is trusted under the names of its Service', async () => {
  await web.close();
  web = await start();
  for (const servername of ['fovea-operator', 'fovea-operator.default', 'fovea-operator.default.svc']) {
    const socket: TLSSocket = connectTls({ port: web.intakePort, host: '127.0.0.1', ca: web.caPem, servername });
    await once(socket, 'secureConnect');
    socket.destroy();
  }
});

it.run();
