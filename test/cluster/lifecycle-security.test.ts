import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { issue, issueAuthority } from './certificates.ts';
import { type ControlPlane, startControlPlane } from './controlplane.ts';
import { processesOf } from './processes.ts';
import { type Access, request } from './requests.ts';

const it = suite('control plane security');
let plane: ControlPlane;

it.before(async () => {
  plane = await startControlPlane({ controllers: true });
});
it.after(() => plane.stop());

/** A request that must succeed. */
async function admin(method: string, path: string, body?: unknown) {
  const { status, body: answer } = await request(plane.admin, path, { method, body });
  assert.ok(status < 300, `${method} ${path}: ${status} ${answer}`);
  return JSON.parse(answer);
}

/** Code of the error that the request ended with. */
const refusal = (access: Access, path: string): Promise<string> =>
  request(access, path).then(
    ({ status }) => `answered ${status}`,
    (error) => `${error.code}`,
  );

/** A namespace whose service account is there. */
async function namespace(name: string, labels: Record<string, string> = {}) {
  await admin('POST', '/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } });
  const account = `/api/v1/namespaces/${name}/serviceaccounts/default`;
  while ((await request(plane.admin, account)).status !== 200) await delay(20);
}

const pod = (name: string, spec: object = {}, securityContext: object = {}) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name },
  spec: { containers: [{ name: 'main', image: 'any', securityContext }], ...spec },
});

it('answers a client without a certificate 401, for any path', async () => {
  const { server, ca } = plane.admin;
  for (const path of ['/api/v1/namespaces', '/readyz', '/openid/v1/jwks']) {
    assert.is((await request({ server, ca }, path)).status, 401, path);
  }
});

it('shows a certificate that another authority does not vouch for', async () => {
  const { certificate: ca } = await issueAuthority('fovea-cluster');
  assert.match(
    await refusal({ ...plane.admin, ca }, '/readyz'),
    /^(UNABLE_TO_VERIFY|CERT_SIGNATURE_FAILURE|SELF_SIGNED)/,
  );
});

it('answers a client whose certificate another authority signed 401', async () => {
  const impostor = await issue(await issueAuthority('fovea-cluster'), { user: 'admin', group: 'system:masters' });
  assert.is((await request({ ...plane.admin, ...impostor }, '/api/v1/namespaces')).status, 401);
});

it('lets only the API server into the database', async () => {
  const args = (await processesOf(plane.dir)).find(({ argv }) => argv[1] === 'etcd')!.argv;
  const server = args.find((word) => word.startsWith('--listen-client='))!.slice('--listen-client='.length);
  const ca = await readFile(join(plane.dir, 'pki', 'etcd-ca.crt'), 'utf8');
  assert.match(await refusal({ ...plane.admin, server, ca }, '/version'), /^ERR_SSL|^ECONNRESET/);
  assert.match(await refusal({ server, ca }, '/version'), /^ERR_SSL|^ECONNRESET/);
});

it('gives a user no right that was not given, and then that one', async () => {
  await namespace('rights');
  const { access } = await plane.userOf({ user: 'alice' });
  const secrets = '/api/v1/namespaces/rights/secrets';
  assert.is((await request(access, secrets)).status, 403);
  const role = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'admin' };
  const subject = { apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'alice' };
  await admin('POST', '/apis/rbac.authorization.k8s.io/v1/namespaces/rights/rolebindings', {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'RoleBinding',
    metadata: { name: 'alice' },
    roleRef: role,
    subjects: [subject],
  });
  while ((await request(access, secrets)).status === 403) await delay(20);
  assert.is((await request(access, secrets)).status, 200);
  assert.is((await request(access, '/api/v1/secrets')).status, 403);
});

it('refuses a privileged pod in a restricted namespace, and takes one that fits', async () => {
  await namespace('restricted', { 'pod-security.kubernetes.io/enforce': 'restricted' });
  const pods = '/api/v1/namespaces/restricted/pods';
  const refused = await request(plane.admin, pods, {
    method: 'POST',
    body: pod('privileged', {}, { privileged: true }),
  });
  assert.is(refused.status, 403);
  assert.match(refused.body, 'violates PodSecurity \\"restricted:latest\\": privileged');
  const fitting = { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } };
  const container = { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } };
  await admin('POST', pods, pod('fitting', { securityContext: fitting }, container));
});

it('takes a privileged pod where no standard is enforced', async () => {
  await namespace('unrestricted');
  await admin('POST', '/api/v1/namespaces/unrestricted/pods', pod('privileged', {}, { privileged: true }));
});

it('lets a node change its own Node and pods, and nothing of another node', async () => {
  const { access } = await plane.userOf({ user: 'system:node:one', group: 'system:nodes' });
  const node = (name: string) => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } });
  const create = (name: string) => request(access, '/api/v1/nodes', { method: 'POST', body: node(name) });
  assert.is((await create('one')).status, 201);
  assert.is((await create('two')).status, 403);

  await admin('POST', '/api/v1/nodes', node('two'));
  await namespace('nodes');
  const pods = '/api/v1/namespaces/nodes/pods';
  for (const name of ['one', 'two']) await admin('POST', pods, pod(`on-${name}`, { nodeName: name }));
  const setStatus = (name: string) =>
    request(access, `${pods}/on-${name}/status`, {
      method: 'PATCH',
      headers: { 'content-type': 'application/merge-patch+json' },
      body: { status: { phase: 'Running' } },
    });
  // The Node authorizer learns of a new pod by a watch.
  while ((await setStatus('one')).status !== 200) await delay(20);
  assert.is((await setStatus('two')).status, 403);
});

it('keeps from a node the Secrets that none of its pods uses', async () => {
  const { access } = await plane.userOf({ user: 'system:node:one', group: 'system:nodes' });
  await namespace('secrets');
  const secret = (name: string) => ({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name },
    stringData: { key: 'value' },
  });
  for (const name of ['used', 'unused']) await admin('POST', '/api/v1/namespaces/secrets/secrets', secret(name));
  const volumes = [{ name: 'used', secret: { secretName: 'used' } }];
  await admin('POST', '/api/v1/namespaces/secrets/pods', pod('user', { nodeName: 'one', volumes }));
  const read = (name: string) => request(access, `/api/v1/namespaces/secrets/secrets/${name}`);
  while ((await read('used')).status !== 200) await delay(20);
  assert.is((await read('unused')).status, 403);
});

it('publishes the keys by which service account tokens are verified', async () => {
  const headers = { accept: 'application/jwk-set+json' };
  const { keys } = JSON.parse((await request(plane.admin, '/openid/v1/jwks', { headers })).body);
  assert.equal(
    keys.map(({ kty, alg }: { kty: string; alg: string }) => [kty, alg]),
    [['RSA', 'RS256']],
  );
});

it('ends with the process that started it, however that ended', async () => {
  const script = `import { startControlPlane } from ${JSON.stringify(join(import.meta.dirname, 'controlplane.ts'))};
    console.log((await startControlPlane()).dir); setInterval(() => {}, 1000);`;
  const starter = spawn(execPath, ['--input-type=module', '--eval', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [dir] = (await once(createInterface({ input: starter.stdout }), 'line')) as [string];
  assert.is((await processesOf(dir)).length, 2);
  starter.kill('SIGKILL');
  await once(starter, 'exit');
  // Would wait for the file's time limit if they went on.
  while ((await processesOf(dir)).length > 0) await delay(20);
  await rm(dir, { recursive: true });
});

it.run();
