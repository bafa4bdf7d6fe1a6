// timeout: 120
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RESOURCES } from '../../operator/api/object.ts';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import type { KubeObject } from '../../operator/kube/resources.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { freePorts } from '../cluster/ports.ts';
import { eventually } from '../eventually.ts';
import { installKinds } from './kinds.ts';

const it = suite('what an operator says of itself');

let plane: ControlPlane;
let client: Client;
let operator: ChildProcess;
let port: number;
let output = '';

it.before(async () => {
  plane = await startControlPlane();
  client = await connect(loadConfig(plane.kubeconfig));
  [port] = (await freePorts(1)) as [number];
  operator = spawn(process.execPath, ['operator/main.ts'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, KUBECONFIG: plane.kubeconfig, INTAKE_PORT: '0', HEALTH_PORT: `${port}`, LOG_LEVEL: 'debug' },
  });
  operator.stdout?.on('data', (chunk) => {
    output += chunk;
  });
});
it.after(async () => {
  operator.kill('SIGTERM');
  await once(operator, 'exit');
  await client.close();
  await plane.stop();
});

const get = (path: string) => fetch(`http://127.0.0.1:${port}${path}`);

/** Samples of /metrics whose name and labels match, as `name{labels} value`. */
async function samples(pattern: RegExp): Promise<string[]> {
  return (await (await get('/metrics')).text()).split('\n').filter((line) => pattern.test(line));
}

it('is alive before its caches are synced, and ready only afterwards', async () => {
  await eventually(async () => (await get('/healthz')).status === 200);
  // The API server does not know the kinds yet, which it has asked for.
  await eventually(
    async () => (await samples(/^fovea_api_requests_total\{.*resource="datasets",code="404"/)).length > 0,
  );
  assert.equal([(await get('/readyz')).status, (await get('/healthz')).status], [503, 200]);
  assert.match((await samples(/^fovea_leader /)).join(), 'fovea_leader 0', 'who is not synced does not lead');
  await installKinds(client);
  await eventually(async () => (await get('/readyz')).status === 200);
  await eventually(async () => (await samples(/^fovea_leader 1$/)).length === 1);
});

it('measures reconciles, queues, requests, lists and watches', async () => {
  await client.create(RESOURCES.datasets, {
    apiVersion: 'fovea.dev/v1alpha1',
    kind: 'Dataset',
    metadata: { name: 'd', namespace: 'default' },
    spec: { source: { type: 'HTTP', http: { url: 'http://127.0.0.1/a.tar', digest: `sha256:${'a'.repeat(64)}` } } },
  } as KubeObject);
  await eventually(async () =>
    (await samples(/^fovea_reconciles_total\{controller="dataset",outcome="success"\} [1-9]/)).at(0),
  );
  for (const pattern of [
    /^fovea_reconcile_duration_seconds_count\{controller="dataset"\} [1-9]/,
    /^fovea_queue_depth\{controller="dataset"\} \d/,
    /^fovea_queue_age_seconds\{controller="dataset"\} \d/,
    /^fovea_api_requests_total\{verb="update",resource="datasets",code="200"\} [1-9]/,
    /^fovea_api_requests_total\{verb="watch",resource="pods",code="200"\} [1-9]/,
    /^fovea_api_request_duration_seconds_count\{verb="update"\} [1-9]/,
    /^fovea_lists_total\{resource="datasets"\} [1-9]/,
    /^fovea_watches_total\{resource="datasets"\} [1-9]/,
    /^process_resident_memory_bytes \d/,
  ]) {
    assert.is((await samples(pattern)).length, 1, String(pattern));
  }
});

it('writes lines of JSON, and all that it did for one reconcile can be found by its id', async () => {
  type Line = { msg: string; object?: string; controller?: string; reconcile?: string; verb?: string };
  const lines = () =>
    output
      .split('\n')
      .slice(0, -1)
      .map((line): Line => JSON.parse(line));
  const written = await eventually(async () =>
    lines().find(({ verb, object }) => verb === 'update' && object === 'default/d'),
  );
  assert.is(written.controller, 'dataset');
  const same = await eventually(async () => {
    const found = lines().filter(({ reconcile }) => reconcile === written.reconcile);
    return found.some(({ msg }) => msg === 'reconciled') ? found : undefined;
  });
  assert.ok(same.every(({ object }) => object === 'default/d'));
  assert.ok(
    lines().some(({ verb, reconcile }) => verb === 'watch' && reconcile === undefined),
    'what belongs to no reconcile has no id',
  );
});

it.run();
