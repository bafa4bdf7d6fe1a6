// timeout: 280
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { CoreV1Event, V1Job, V1Pod } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RESOURCES } from '../../operator/api/object.ts';
import { CLAIMS, EVENTS, JOBS, type KubeObject, PODS, type Resource } from '../../operator/kube/resources.ts';
import { issue, issueAuthority } from '../cluster/certificates.ts';
import { eventually } from '../eventually.ts';
import { type Any, exported, type Kind, type Operated, prepared, SPECS, startOperator, trained } from './operated.ts';

const it = suite('failures of children');

const resource = (group: string, plural: string, kind: string, namespaced = true): Resource => ({
  group,
  version: 'v1',
  plural,
  kind,
  namespaced,
});
const QUOTAS = resource('', 'resourcequotas', 'ResourceQuota');
const LIMIT_RANGES = resource('', 'limitranges', 'LimitRange');
const NODES = resource('', 'nodes', 'Node', false);
const VOLUMES = resource('', 'persistentvolumes', 'PersistentVolume', false);
const CLASSES = resource('storage.k8s.io', 'storageclasses', 'StorageClass', false);
const WEBHOOKS = resource(
  'admissionregistration.k8s.io',
  'mutatingwebhookconfigurations',
  'MutatingWebhookConfiguration',
  false,
);

/** Within so many seconds the object says what happened to its children. */
const SECONDS = 15;

let on: Operated;

it.before(async () => {
  on = await startOperator({ scheduler: true });
});
it.after(async () => {
  await on[Symbol.asyncDispose]();
});

const create = (of: Resource, name: string, body: object, namespace?: string) =>
  on.client.create(of, {
    apiVersion: of.group ? `${of.group}/${of.version}` : of.version,
    kind: of.kind,
    metadata: { name, ...(namespace ? { namespace } : {}) },
    ...body,
  } as KubeObject);

/** Waits until the object says that it waits for this, in its conditions and in lastFailure, and returns the words. */
async function says(kind: Kind, ns: string, name: string, reason: string): Promise<string> {
  const object = await on.condition(kind, ns, name, 'Ready', 'False', reason, SECONDS);
  const { conditions, lastFailure } = object.status ?? {};
  assert.is(conditions?.find((c) => c.type === 'Reconciling')?.status, 'True');
  assert.is(
    conditions?.find((c) => c.type === 'Stalled'),
    undefined,
  );
  assert.is(lastFailure?.reason, reason);
  assert.is(lastFailure?.message, conditions?.find((c) => c.type === 'Ready')?.message);
  return lastFailure?.message ?? '';
}

/** Lets the pod of the object's Job run, and waits until nothing is left of the failure. */
async function runs(kind: Kind, ns: string, name: string): Promise<Any> {
  await on.run(await on.podOf(kind, ns, name));
  const object = await on.condition(kind, ns, name, 'Ready', 'Unknown', 'Running', SECONDS);
  assert.is(object.status?.lastFailure, undefined);
  return object;
}

async function warnings(ns: string, name: string, reason: string): Promise<CoreV1Event[]> {
  const fieldSelector = `involvedObject.name=${name},reason=${reason},type=Warning`;
  return (await on.client.list<CoreV1Event & KubeObject>(EVENTS, { namespace: ns, fieldSelector })).items;
}

/** A TrainingJob of two workers whose Dataset is ready. */
async function twoWorkers(ns: string): Promise<void> {
  await on.apply('datasets', ns, 'd');
  await on.end(await on.podOf('datasets', ns, 'd'), 0, { result: prepared });
  await on.condition('datasets', ns, 'd', 'Ready', 'True');
  await on.apply('trainingJobs', ns, 't', { ...SPECS.trainingJobs, workers: { replicas: 2 } });
}

it('a quota that has room for one of two workers is named, told once, and forgotten when it is raised', async () => {
  const ns = await on.place('quota');
  await create(QUOTAS, 'small', { spec: { hard: { 'limits.memory': '5Gi' } } }, ns);
  await twoWorkers(ns);
  const message = await says('trainingJobs', ns, 't', 'QuotaExceeded');
  assert.match(
    message,
    /^ResourceQuota small leaves no room for the pod \(requested: limits\.memory=4Gi, used: limits\.memory=\S+, limited: limits\.memory=5Gi\)\./,
  );
  assert.match(message, 'Lower spec.workers.resources.limits.memory, or raise spec.hard of the ResourceQuota.');
  await eventually(async () => (await warnings(ns, 't', 'QuotaExceeded')).length === 1);

  await on.client.patch(QUOTAS, ns, 'small', { spec: { hard: { 'limits.memory': '10Gi' } } });
  const pods = await eventually(async () => {
    const { items } = await on.client.list<V1Pod & KubeObject>(PODS, {
      namespace: ns,
      labelSelector: 'fovea.dev/trainingjob=t',
    });
    return items.length === 2 ? items : undefined;
  });
  for (const pod of pods) await on.run(pod);
  const { status } = await on.condition('trainingJobs', ns, 't', 'Running', 'True');
  assert.is(status?.lastFailure, undefined);
  assert.is((await warnings(ns, 't', 'QuotaExceeded')).length, 1);
});

it('a LimitRange is quoted with the field to change, and a spec that fits it is tried in a new Job', async () => {
  const ns = await on.place('limitrange');
  await create(LIMIT_RANGES, 'most', { spec: { limits: [{ type: 'Container', max: { memory: '1Gi' } }] } }, ns);
  await on.apply('datasets', ns, 'd');
  const message = await says('datasets', ns, 'd', 'LimitRangeViolated');
  assert.match(message, 'maximum memory usage per Container is 1Gi, but limit is 2Gi. Change spec.resources');
  await on.client.patch(RESOURCES.datasets, ns, 'd', { spec: { resources: { limits: { memory: '1Gi' } } } });
  const { status } = await runs('datasets', ns, 'd');
  assert.is(status?.attempt, 2);
});

it('what Pod Security refuses of a pod that a webhook changed is quoted, and it passes without the webhook', async () => {
  const ns = await on.place('podsecurity');
  const authority = await issueAuthority('webhook');
  const { certificate, privateKey } = await issue(authority, { user: 'webhook', hosts: ['127.0.0.1'] });
  const patch = JSON.stringify([{ op: 'add', path: '/spec/hostNetwork', value: true }]);
  const webhook = createServer({ cert: certificate, key: privateKey }, async (request, response) => {
    const { uid } = JSON.parse((await request.toArray()).join('')).request;
    const answer = { uid, allowed: true, patchType: 'JSONPatch', patch: Buffer.from(patch).toString('base64') };
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: answer }));
  });
  webhook.listen(0, '127.0.0.1');
  await once(webhook, 'listening');
  try {
    await create(WEBHOOKS, 'mesh', {
      webhooks: [
        {
          name: 'mesh.example.com',
          clientConfig: {
            url: `https://127.0.0.1:${(webhook.address() as AddressInfo).port}/`,
            caBundle: Buffer.from(authority.certificate).toString('base64'),
          },
          rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
          namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': ns } },
          sideEffects: 'None',
          admissionReviewVersions: ['v1'],
        },
      ],
    });
    // The API server takes a moment to call a new webhook: the first object that is refused is the one to look at.
    const name = await eventually(async () => {
      const tried = `d${performance.now().toFixed(0)}`;
      await on.apply('datasets', ns, tried);
      await on.condition('datasets', ns, tried, 'Ready', 'False', 'PodSecurityViolated', SECONDS);
      return tried;
    });
    const message = await says('datasets', ns, name, 'PodSecurityViolated');
    assert.match(message, /level restricted:latest refuses the pod: host namespaces \(hostNetwork=true\)/);
    assert.match(message, 'pod-security.kubernetes.io/enforce');
    await on.client.delete(WEBHOOKS, undefined, 'mesh');
    await runs('datasets', ns, name);
  } finally {
    webhook.close();
    webhook.closeAllConnections();
  }
});

it('a service account that does not exist is named with its field', async () => {
  const ns = await on.place('account');
  await on.apply('datasets', ns, 'd', { ...SPECS.datasets, pod: { serviceAccountName: 'robot' } });
  const message = await says('datasets', ns, 'd', 'ServiceAccountNotFound');
  assert.match(
    message,
    /^ServiceAccount robot does not exist in namespace account; .* spec\.pod\.serviceAccountName\.$/,
  );
  await create(resource('', 'serviceaccounts', 'ServiceAccount'), 'robot', {}, ns);
  await runs('datasets', ns, 'd');
});

it('a pod that fits no node is shown with the scheduler’s words and what it asks for, until it asks for less', async () => {
  const ns = await on.place('scheduling');
  await create(NODES, 'node-1', {});
  const allocatable = { cpu: '4', memory: '8Gi', pods: '110' };
  const conditions = [{ type: 'Ready', status: 'True' }];
  await eventually(async () => {
    const node = await on.client.get<KubeObject & { spec: object }>(NODES, undefined, 'node-1');
    await on.client.replaceStatus(NODES, {
      ...node,
      status: { allocatable, capacity: allocatable, conditions },
    } as KubeObject);
    // Without a kubelet nothing else takes the taint of a new node away.
    return on.client.patch(NODES, undefined, 'node-1', { spec: { taints: null } });
  });
  await on.apply('datasets', ns, 'd', { ...SPECS.datasets, resources: { requests: { memory: '64Gi' } } });
  // The scheduler may not have seen the node at first, or its taint.
  const message = await eventually(async () => {
    const said = await says('datasets', ns, 'd', 'Unschedulable');
    return /cannot be scheduled: 0\/1 nodes are available: 1 Insufficient memory\./.test(said) ? said : undefined;
  });
  assert.match(message, 'It asks for memory 64Gi: lower spec.resources.requests.memory, or add a node');
  assert.match(message, (await on.get('datasets', ns, 'd')).status?.lastFailure?.pod ?? '?');

  await on.client.patch(RESOURCES.datasets, ns, 'd', { spec: { resources: { requests: { memory: '1Gi' } } } });
  await eventually(async () => {
    const { status } = await on.get('datasets', ns, 'd');
    if (status?.attempt !== 2) return false;
    return (await on.podOf('datasets', ns, 'd')).spec?.nodeName === 'node-1';
  });
  await runs('datasets', ns, 'd');
});

it('a claim without a volume says which class it lacks, and is forgotten once it is bound', async () => {
  const ns = await on.namespace('claims');
  const claim = (name: string, storageClassName?: string) =>
    create(
      CLAIMS,
      name,
      { spec: { accessModes: ['ReadWriteMany'], storageClassName, resources: { requests: { storage: '1Gi' } } } },
      ns,
    );
  const dataset = (name: string) =>
    on.apply('datasets', ns, name, { ...SPECS.datasets, store: { type: 'PVC', pvc: { claimName: name } } });

  await claim('classless');
  await dataset('classless');
  assert.match(
    await says('datasets', ns, 'classless', 'ClaimPending'),
    /^PersistentVolumeClaim classless has no volume: .*no storage class is set\. Make it anew with a class/,
  );

  await claim('fast', 'fast');
  await dataset('fast');
  assert.match(
    await says('datasets', ns, 'fast', 'ClaimPending'),
    /storageclass\S* "fast" not found\. Create StorageClass fast/,
  );
  await create(VOLUMES, 'fast', {
    spec: {
      accessModes: ['ReadWriteMany'],
      storageClassName: 'fast',
      capacity: { storage: '1Gi' },
      hostPath: { path: '/nowhere' },
      claimRef: { namespace: ns, name: 'fast' },
    },
  });
  await runs('datasets', ns, 'fast');

  await create(CLASSES, 'away', { provisioner: 'away.example.com', volumeBindingMode: 'Immediate' });
  await claim('away', 'away');
  await dataset('away');
  assert.match(
    await says('datasets', ns, 'away', 'ClaimPending'),
    /away\.example\.com.* See that the provisioner of StorageClass away runs\.$/,
  );
});

it('a claim that waits for its first pod is no failure', async () => {
  const ns = await on.namespace('firstconsumer');
  await create(CLASSES, 'late', { provisioner: 'late.example.com', volumeBindingMode: 'WaitForFirstConsumer' });
  const claim = {
    accessModes: ['ReadWriteMany'],
    storageClassName: 'late',
    resources: { requests: { storage: '1Gi' } },
  };
  await create(CLAIMS, 'fovea-store', { spec: claim }, ns);
  await on.apply('datasets', ns, 'd', { ...SPECS.datasets, pod: { nodeSelector: { none: 'such' } } });
  await eventually(async () => {
    const fieldSelector = 'involvedObject.name=fovea-store,reason=WaitForFirstConsumer';
    return (await on.client.list(EVENTS, { namespace: ns, fieldSelector })).items.length > 0;
  });
  await says('datasets', ns, 'd', 'Unschedulable');
});

it('a service whose pods are refused says so, and nothing of it when they are ready', async () => {
  const ns = await on.place('service');
  await on.apply('datasets', ns, 'd');
  await on.apply('trainingJobs', ns, 't');
  await on.apply('modelExports', ns, 'e');
  await on.end(await on.podOf('datasets', ns, 'd'), 0, { result: prepared });
  await on.end(await on.podOf('trainingJobs', ns, 't'), 0, { result: trained });
  await on.end(await on.podOf('modelExports', ns, 'e'), 0, { result: exported(true) });
  await on.condition('modelExports', ns, 'e', 'Ready', 'True');
  await create(QUOTAS, 'few', { spec: { hard: { pods: '1' } } }, ns);
  await eventually(async () => {
    const quota = await on.client.get<KubeObject & { status?: { used?: object } }>(QUOTAS, ns, 'few');
    return quota.status?.used;
  });
  await on.apply('inferenceServices', ns, 's');
  const message = await says('inferenceServices', ns, 's', 'QuotaExceeded');
  assert.match(
    message,
    /^ResourceQuota few leaves no room for the pod \(requested: pods=1, used: pods=1, limited: pods=1\)/,
  );

  await on.client.delete(QUOTAS, ns, 'few');
  const pods = await eventually(async () => {
    const labelSelector = 'fovea.dev/service=s';
    const { items } = await on.client.list<V1Pod & KubeObject>(PODS, { namespace: ns, labelSelector });
    return items.length === 2 ? items : undefined;
  });
  for (const pod of pods) await on.run(pod);
  await eventually(async () => {
    // What a kubelet says of a pod is more than its phase, before a Deployment counts it.
    for (const { metadata } of pods) {
      const pod = await on.client.get<V1Pod & KubeObject>(PODS, ns, metadata?.name ?? '');
      if (pod.status?.conditions?.some((c) => c.type === 'Ready')) continue;
      const conditions = [...(pod.status?.conditions ?? []), { type: 'Ready', status: 'True' }];
      await on.client.replaceStatus(PODS, { ...pod, status: { ...pod.status, conditions } } as unknown as KubeObject);
    }
    return true;
  });
  const { status } = await on.condition('inferenceServices', ns, 's', 'Ready', 'True', 'Serving');
  assert.is(status?.lastFailure, undefined);
});

it('an exit that is tried again waits, and one that only the user can mend stalls', async () => {
  const ns = await on.place('exits');
  await on.apply('datasets', ns, 'd');
  const failure = { reason: 'StoreFull', message: 'no space left at /store (ENOSPC)' };
  await on.end(await on.podOf('datasets', ns, 'd'), 1, { failure });
  const waiting = await on.condition('datasets', ns, 'd', 'Reconciling', 'True', 'StoreFull', SECONDS);
  assert.match(
    waiting.status?.lastFailure?.message ?? '',
    /The store is PersistentVolumeClaim fovea-store, of 1Gi: raise its spec\.resources\.requests\.storage/,
  );
  assert.is(waiting.status?.lastFailure?.exitCode, 1);
  assert.match(waiting.status?.conditions?.[0].message ?? '', /It is tried again\.$/);

  await on.end(await on.podOf('datasets', ns, 'd'), 65, {});
  const stalled = await on.condition('datasets', ns, 'd', 'Stalled', 'True', 'NoAccelerator', SECONDS);
  assert.match(stalled.status?.lastFailure?.message ?? '', 'was to use an accelerator and found none');
  const { jobName } = stalled.status ?? {};
  const job = await on.client.get<V1Job & KubeObject>(JOBS, ns, jobName ?? '');
  assert.ok(job.status?.conditions?.some((c) => c.type === 'Failed' && c.status === 'True'));
});

it.run();
