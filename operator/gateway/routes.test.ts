import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { REVISION_LABEL } from '../manifests/labels.ts';
import { route, target, type WatchedPod, type WatchedService } from './routes.ts';

const it = suite('routes');

function service(revisions?: { name: string; trafficPercent: number }[], request?: object): WatchedService {
  return { metadata: { name: 'a', namespace: 'n' }, spec: { request }, status: revisions && { revisions } };
}

function pod(uid: string, revision: string, change: Partial<WatchedPod['metadata']> = {}, ready = 'True'): WatchedPod {
  return {
    metadata: { name: uid, namespace: 'n', uid, labels: { [REVISION_LABEL]: revision }, ...change },
    status: { podIP: `127.70.0.${uid}`, conditions: [{ type: 'Ready', status: ready }] },
  };
}

const shares = (routed: ReturnType<typeof route>) =>
  routed.revisions.map((revision) => [revision.name, revision.weight, revision.endpoints.map(({ uid }) => uid)]);

it('goes to the ready pods of each revision by its share', () => {
  const pods = [pod('1', 'a-1'), pod('2', 'a-2'), pod('3', 'a-1')];
  const routed = route(
    service([
      { name: 'a-1', trafficPercent: 90 },
      { name: 'a-2', trafficPercent: 10 },
    ]),
    pods,
  );
  assert.equal(shares(routed), [
    ['a-1', 90, ['1', '3']],
    ['a-2', 10, ['2']],
  ]);
  assert.is(routed.revisions[0]?.endpoints[0]?.origin, 'http://127.70.0.1:8080');
});

it('leaves out pods that are not ready, are going away, or have no address yet', () => {
  const pods = [
    pod('1', 'a-1', {}, 'False'),
    pod('2', 'a-1', { deletionTimestamp: '2026-01-01T00:00:00Z' }),
    { ...pod('3', 'a-1'), status: { conditions: [{ type: 'Ready', status: 'True' }] } },
    pod('4', 'a-1', { labels: {} }),
  ];
  assert.equal(shares(route(service([{ name: 'a-1', trafficPercent: 100 }]), pods)), []);
});

it('asks pods on their way out where no other is left, until they have ended', () => {
  const revisions = service([
    { name: 'a-1', trafficPercent: 100 },
    { name: 'a-2', trafficPercent: 0 },
  ]);
  const leaves = (uid: string, phase: string) => {
    const { metadata, status } = pod(uid, 'a-1', { deletionTimestamp: '2026-01-01T00:00:00Z' }, 'False');
    return { metadata, status: { ...status, phase } };
  };
  assert.equal(shares(route(revisions, [leaves('1', 'Running'), pod('3', 'a-2')])), [['a-1', 100, ['1']]]);
  assert.equal(shares(route(revisions, [leaves('1', 'Running'), pod('2', 'a-1')])), [['a-1', 100, ['2']]]);
  assert.equal(shares(route(revisions, [leaves('1', 'Succeeded'), pod('3', 'a-2')])), []);
});

it('gives the share of a revision without ready pods to the others, and none to a revision at 0 percent', () => {
  const revisions = [
    { name: 'a-1', trafficPercent: 50 },
    { name: 'a-2', trafficPercent: 50 },
    { name: 'a-3', trafficPercent: 0 },
  ];
  assert.equal(shares(route(service(revisions), [pod('2', 'a-2'), pod('3', 'a-3')])), [['a-2', 50, ['2']]]);
});

it('has no revision for a service whose status names none', () => {
  assert.equal(route(service(), [pod('1', 'a-1')]).revisions, []);
  assert.equal(route(service([]), [pod('1', 'a-1')]).revisions, []);
});

it('takes the limits of the spec, else 20 MiB and 30 s', () => {
  const { maxBodyBytes, timeoutMilliseconds } = route(service(), []);
  assert.equal([maxBodyBytes, timeoutMilliseconds], [20 * 2 ** 20, 30_000]);
  const set = route(service([], { maxBodyBytes: 1000, timeoutSeconds: 2 }), []);
  assert.equal([set.maxBodyBytes, set.timeoutMilliseconds], [1000, 2000]);
});

it('writes an IPv6 address in brackets', () => {
  const six = { ...pod('1', 'a-1'), status: { podIP: 'fd00::1', conditions: [{ type: 'Ready', status: 'True' }] } };
  const routed = route(service([{ name: 'a-1', trafficPercent: 100 }]), [six]);
  assert.is(routed.revisions[0]?.endpoints[0]?.origin, 'http://[fd00::1]:8080');
});

it('reads the two paths of a service', () => {
  assert.equal(target('/v1/namespaces/n/inferenceservices/a:classify?top=3'), {
    namespace: 'n',
    name: 'a',
    path: '/v1/models/a:classify?top=3',
    classify: true,
  });
  assert.equal(target('/v1/namespaces/n/inferenceservices/a/v2/models/a/infer'), {
    namespace: 'n',
    name: 'a',
    path: '/v2/models/a/infer',
    classify: false,
  });
});

it('reads no path that leads elsewhere at the predictor', () => {
  const base = '/v1/namespaces/n/inferenceservices/a';
  for (const path of [
    base,
    `${base}/metrics`,
    `${base}/v2/../metrics`,
    `${base}/v2/%2e%2e/metrics`,
    `${base}/v2//metrics`,
    `${base}/v2x`,
    `${base}:other`,
    '/v2/models/a',
    '/v1/namespaces/../inferenceservices/a:classify',
    '/v1/namespaces/n/inferenceservices/A:classify',
  ])
    assert.is(target(path), undefined, path);
});

it.run();
