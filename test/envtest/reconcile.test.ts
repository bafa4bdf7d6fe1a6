// timeout: 240
import type { V1Deployment, V1Job, V1Pod } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RESOURCES } from '../../operator/api/object.ts';
import { CLAIMS, DEPLOYMENTS, JOBS, type KubeObject } from '../../operator/kube/resources.ts';
import { EXIT, type Result } from '../../trainer-image/contract.ts';
import { eventually } from '../eventually.ts';
import { DIGEST, exported, type Kind, type Operated, prepared, SPECS, startOperator, trained } from './operated.ts';

const it = suite('reconcilers');

let on: Operated;

it.before(async () => {
  on = await startOperator();
});
it.after(async () => {
  await on[Symbol.asyncDispose]();
});

it('carry four objects, applied at once and in the wrong order, from data to a service', async () => {
  const ns = await on.place('line');
  await on.apply('inferenceServices', ns, 's');
  await on.apply('modelExports', ns, 'e');
  await on.condition('inferenceServices', ns, 's', 'Ready', 'False', 'ModelExportNotReady');
  await on.condition('modelExports', ns, 'e', 'Ready', 'False', 'TrainingJobNotFound');
  await on.apply('trainingJobs', ns, 't');
  await on.condition('trainingJobs', ns, 't', 'Ready', 'False', 'DatasetNotFound');
  await on.apply('datasets', ns, 'd');
  await on.condition('trainingJobs', ns, 't', 'Ready', 'False', 'DatasetNotReady');
  await on.end(await on.podOf('datasets', ns, 'd'), 0, { result: prepared });
  const dataset = await on.condition('datasets', ns, 'd', 'Ready', 'True', 'Packed');
  assert.is(dataset.status?.artifact?.uri, `store://fovea-store/blobs/sha256/${'a'.repeat(64)}`);
  assert.equal(dataset.spec, SPECS.datasets, 'the spec is the user’s');

  await on.end(await on.podOf('trainingJobs', ns, 't'), 0, { result: trained });
  const job = await on.condition('trainingJobs', ns, 't', 'Complete', 'True');
  assert.is(job.status?.lineage?.[0].digest, DIGEST.a);
  assert.is((job.status?.resolved as { recipe: { epochs: number } } | undefined)?.recipe.epochs, 30);

  await on.end(await on.podOf('modelExports', ns, 'e'), 0, { result: exported(true) });
  await on.condition('modelExports', ns, 'e', 'Verified', 'True');

  const deployment = await eventually(async () => {
    const [found] = (await on.client.list<V1Deployment & KubeObject>(DEPLOYMENTS, { namespace: ns })).items;
    return found;
  });
  await on.condition('inferenceServices', ns, 's', 'Ready', 'Unknown', 'RollingOut');
  await on.condition('inferenceServices', ns, 's', 'Available', 'False');
  const ready = {
    replicas: 2,
    readyReplicas: 2,
    availableReplicas: 2,
    updatedReplicas: 2,
    observedGeneration: deployment.metadata?.generation,
  };
  await eventually(async () => {
    // The real Deployment controller writes too, and sees no ready pod; what matters is that ours is seen once.
    const now = await on.client.get<V1Deployment & KubeObject>(DEPLOYMENTS, ns, deployment.metadata?.name ?? '');
    await on.client.replaceStatus(DEPLOYMENTS, { ...now, status: ready } as unknown as KubeObject);
    const service = await on.get('inferenceServices', ns, 's');
    return (service.status?.revisions as { trafficPercent: number }[] | undefined)?.[0]?.trafficPercent === 100;
  });
  const service = await on.get('inferenceServices', ns, 's');
  assert.is(service.status?.modelDigest, DIGEST.c);
});

it('make a Job again that was deleted behind their back, and go on from there', async () => {
  const ns = await on.place('deleted');
  const kinds: [Kind, string, Result][] = [
    ['datasets', 'd', prepared],
    ['trainingJobs', 't', trained],
    ['modelExports', 'e', exported(true)],
  ];
  for (const [kind, name, result] of kinds) {
    await on.apply(kind, ns, name);
    const pod = await on.podOf(kind, ns, name);
    const { jobName } = (await on.get(kind, ns, name)).status ?? {};
    const job = await on.client.get<V1Job & KubeObject>(JOBS, ns, jobName!);
    await on.client.delete(JOBS, ns, jobName!, job.metadata?.uid);
    const again = await eventually(async () => {
      const next = await on.podOf(kind, ns, name);
      return next.metadata?.uid !== pod.metadata?.uid && next;
    });
    await on.end(again as V1Pod & KubeObject, 0, { result });
    await on.condition(kind, ns, name, 'Ready', 'True');
  }
  await on.apply('inferenceServices', ns, 's');
  const deployment = () =>
    eventually(async () => (await on.client.list<V1Deployment & KubeObject>(DEPLOYMENTS, { namespace: ns })).items[0]);
  const first = await deployment();
  await on.client.delete(DEPLOYMENTS, ns, first.metadata?.name ?? '', first.metadata?.uid);
  const second = await eventually(async () => {
    const next = await deployment();
    return next.metadata?.uid !== first.metadata?.uid && next;
  });
  assert.is((second as KubeObject).metadata?.name, first.metadata?.name);
});

it('stall on a failure that only the user can mend, with the pod’s own words, and run again when the spec changes', async () => {
  const ns = await on.place('failing');
  await on.apply('datasets', ns, 'd');
  const failure = { reason: 'DigestMismatch', message: 'the file is not the one that spec.source.http.digest names' };
  await on.end(await on.podOf('datasets', ns, 'd'), EXIT.USER_ERROR, { failure });
  const stalled = await on.condition('datasets', ns, 'd', 'Stalled', 'True', 'DigestMismatch');
  assert.match(stalled.status?.conditions?.find((c) => c.type === 'Ready')?.message ?? '', /the file is not the one/);
  assert.is(stalled.status?.lastFailure?.exitCode, EXIT.USER_ERROR);
  await on.client.patch(RESOURCES.datasets, ns, 'd', { spec: { source: { http: { digest: DIGEST.b } } } });
  await on.end(await on.podOf('datasets', ns, 'd'), 0, { result: prepared });
  const mended = await on.condition('datasets', ns, 'd', 'Ready', 'True');
  assert.is(mended.status?.lastFailure, undefined);
  assert.equal(
    mended.status?.history?.map((run) => run.result),
    ['Succeeded', 'Failed'],
  );
});

it('keep the numbers of an export that failed its verification, and offer nothing', async () => {
  const ns = await on.place('unverified');
  await on.apply('datasets', ns, 'd');
  await on.apply('trainingJobs', ns, 't');
  await on.apply('modelExports', ns, 'e');
  await on.end(await on.podOf('datasets', ns, 'd'), 0, { result: prepared });
  await on.end(await on.podOf('trainingJobs', ns, 't'), 0, { result: trained });
  const failure = { reason: 'VerificationFailed', message: 'accuracy fell by 51.3 points' };
  await on.end(await on.podOf('modelExports', ns, 'e'), EXIT.USER_ERROR, { result: exported(false), failure });
  const failed = await on.condition('modelExports', ns, 'e', 'Failed', 'True');
  assert.is((failed.status?.verification as { dropPoints: string } | undefined)?.dropPoints, '51.3');
  assert.is(failed.status?.artifact, undefined);
});

it('suspend a job by deleting its pods, and go on as the next attempt', async () => {
  const ns = await on.place('suspended');
  await on.apply('datasets', ns, 'd');
  await on.podOf('datasets', ns, 'd');
  await on.client.patch(RESOURCES.datasets, ns, 'd', { spec: { suspend: true } });
  await on.condition('datasets', ns, 'd', 'Suspended', 'True');
  await eventually(async () => (await on.client.list(JOBS, { namespace: ns })).items.length === 0);
  await on.client.patch(RESOURCES.datasets, ns, 'd', { spec: { suspend: false } });
  await on.podOf('datasets', ns, 'd');
  const resumed = await on.get('datasets', ns, 'd');
  assert.is(resumed.status?.attempt, 2);
  assert.match(resumed.status?.jobName ?? '', /-2$/);
});

it('wait for a store that does not exist and say its name', async () => {
  const ns = await on.namespace('storeless');
  await on.apply('datasets', ns, 'd');
  const waiting = await on.condition('datasets', ns, 'd', 'Ready', 'False', 'StoreNotFound');
  assert.match(waiting.status?.conditions?.[0].message ?? '', /PersistentVolumeClaim fovea-store does not exist/);
});

it('delete what they made when the object goes, and nothing else', async () => {
  const ns = await on.place('gone');
  await on.apply('datasets', ns, 'd');
  await on.podOf('datasets', ns, 'd');
  await on.client.delete(RESOURCES.datasets, ns, 'd');
  await eventually(async () => (await on.client.list(JOBS, { namespace: ns })).items.length === 0);
  assert.is((await on.client.list(CLAIMS, { namespace: ns })).items.length, 1);
});

it.run();
