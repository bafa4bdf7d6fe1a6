// timeout: 600
import type { V1Pod } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type KubeObject, PODS } from '../../operator/kube/resources.ts';
import { eventually } from '../eventually.ts';
import { isTrue, type Line, startLine, tinted } from './line-fixture.ts';
import { askSteadily, changeUnderLoad, drawnModel, gateways, killPredictor, offer, served } from './serving-fixture.ts';
import { withoutRoot } from './unprivileged.ts';

await withoutRoot(import.meta.filename);

const it = suite('serving');
const NAMESPACE = 'serving';
let line: Line;
let model: string;

it.before(async () => {
  line = await startLine(`serving-${process.pid}`);
  await line.namespace(NAMESPACE);
  model = await offer(line, NAMESPACE, 'drawn', drawnModel('steady'));
});

it.after(async () => {
  await line[Symbol.asyncDispose]();
});

const get = (name: string) => line.get('inferenceServices', NAMESPACE, name);
const until = (name: string, is: Parameters<Line['until']>[3]) => line.until('inferenceServices', NAMESPACE, name, is);
const remove = (name: string) => line.kubectl('-n', NAMESPACE, 'delete', 'inferenceservice', name);

it('a changed model and replicas from three to one and back cost no request', async () => {
  const { urls, old, fresh, names, asked } = await changeUnderLoad(line, NAMESPACE, 1500);
  assert.is(urls.length, 2, 'two gateways');
  assert.equal([...asked.answers.keys()].sort(), [`200 ${old}`, `200 ${fresh}`].sort());
  assert.equal([...asked.revisions].sort(), names.sort());
  const { status } = await get('changing');
  assert.equal(
    status?.history?.map(({ artifactDigest }) => artifactDigest),
    [fresh, old],
  );
  await remove('changing');
});

it('a predictor that is killed costs no request', async () => {
  await line.apply(NAMESPACE, served('killed', 'drawn', { replicas: 2 }));
  const { status } = await until('killed', isTrue('Ready', 'Serving'));
  const pods = async () =>
    (await line.client.list<V1Pod & KubeObject>(PODS, { namespace: NAMESPACE, labelSelector: status!.selector! }))
      .items;
  const asking = askSteadily(await gateways(line, NAMESPACE, 'killed'), await tinted('red', 0), 8);
  try {
    for (const victim of await pods()) {
      await asking.answered(asking.asked.sent + 50);
      await killPredictor(victim.status!.podIP!);
      await eventually(async () => {
        const found = (await pods()).find(({ metadata }) => metadata?.uid === victim.metadata?.uid);
        const [container] = found?.status?.containerStatuses ?? [];
        return container?.ready && container.restartCount > 0;
      });
    }
    await asking.answered(asking.asked.sent + 50);
  } finally {
    await asking[Symbol.asyncDispose]();
  }
  assert.equal([...asking.asked.answers.keys()], [`200 ${model}`]);
  await remove('killed');
});

it('refuses what it cannot answer, and says why', async () => {
  await line.apply(NAMESPACE, served('asked', 'drawn', { request: { maxBodyBytes: 5000 } }));
  await until('asked', isTrue('Ready', 'Serving'));
  const [url] = await gateways(line, NAMESPACE, 'asked');
  const headers = { 'content-type': 'image/png' };
  const ask = (body: string | Buffer, to = url) => fetch(`${to}:classify`, { method: 'POST', headers, body });

  const text = await ask('no picture');
  const { reason, error } = (await text.json()) as { reason: string; error: string };
  assert.equal([text.status, reason], [400, 'UnsupportedFormat']);
  assert.ok(error.length > 0);
  const torn = await ask((await tinted('red', 0)).subarray(0, 200));
  assert.is(torn.status, 400, await torn.text());

  const large = await ask(Buffer.alloc(5001));
  assert.equal([large.status, await large.json()], [413, { error: 'the body has 5001 bytes, of at most 5000' }]);

  const unknown = await ask('x', url!.replace(/asked$/, 'nobody'));
  assert.equal(
    [unknown.status, await unknown.json()],
    [404, { error: `there is no InferenceService ${NAMESPACE}/nobody` }],
  );

  const suspend = JSON.stringify({ spec: { suspend: true } });
  await line.kubectl('-n', NAMESPACE, 'patch', 'fis', 'asked', '--type=merge', '-p', suspend);
  await until('asked', ({ status }) => status?.replicas === 0);
  // Its pods are asked until they have ended.
  await eventually(async () => {
    const answer = await ask('x');
    const words = await answer.text();
    return (
      answer.status === 503 &&
      answer.headers.get('retry-after') === '1' &&
      words.includes(`InferenceService ${NAMESPACE}/asked has no ready replica`)
    );
  });
  await remove('asked');
});

it('scales between its bounds on the requests that are pending, stands still under a steady load, and starts no revision', async () => {
  const scaling = { maxReplicas: 3, target: { perReplica: 1 }, scaleDownDelaySeconds: 6 };
  await line.apply(NAMESPACE, served('scaled', 'drawn', { replicas: 1, scaling }));
  const first = await until('scaled', isTrue('Ready', 'Serving'));
  assert.is(first.status?.scaling?.desired, 1);
  const urls = await gateways(line, NAMESPACE, 'scaled');
  const seen = new Set<number>();
  const asking = askSteadily(urls, await tinted('red', 0), 6);
  try {
    const three = await until('scaled', (found) => {
      seen.add(found.status?.scaling?.desired ?? 0);
      return isTrue('Ready', 'Serving')(found) && found.status?.revisions?.[0]?.ready === 3;
    });
    assert.match(three.status?.scaling?.reason ?? '', /^pending [\d.]+ > 1 × [12]/);
    assert.is(three.status?.inputDigest, first.status?.inputDigest);
    await asking.answered(asking.asked.sent + 400);
    assert.equal((await get('scaled')).status?.scaling, three.status?.scaling);
  } finally {
    await asking[Symbol.asyncDispose]();
  }
  assert.equal([...asking.asked.answers.keys()], [`200 ${model}`]);
  const { status } = await until(
    'scaled',
    (found) => isTrue('Ready', 'Serving')(found) && found.status?.replicas === 1 && found.status.scaling?.desired === 1,
  );
  assert.match(status?.scaling?.reason ?? '', /^pending at most [\d.]+ in 6 s/);
  await remove('scaled');
});

it('the API server refuses a scaling that contradicts itself', async () => {
  const refused = async (scaling: object, words: RegExp) => {
    await line.apply(NAMESPACE, served('wrong', 'drawn', { scaling })).then(
      () => assert.unreachable(),
      (error: Error) => assert.match(error.message, words),
    );
  };
  await refused({ minReplicas: 3, maxReplicas: 2 }, /minReplicas is greater than maxReplicas/);
  await refused({ minReplicas: 2 }, /minReplicas is greater than maxReplicas/);
  await refused({ mode: 'External', maxReplicas: 2 }, /with mode External only spec.replicas/);
  await refused({ minReplicas: 0 }, /minReplicas/);
});

it.run();
