import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parse } from 'yaml';
import { KINDS } from '../../operator/api/kinds.ts';
import { RESOURCES } from '../../operator/api/object.ts';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import type { ApiError } from '../../operator/kube/errors.ts';
import type { KubeObject, Resource } from '../../operator/kube/resources.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { installKinds } from './kinds.ts';

const it = suite('custom resource definitions');

let plane: ControlPlane;
let client: Client;

it.before(async () => {
  plane = await startControlPlane();
  client = await connect(loadConfig(plane.kubeconfig));
  await installKinds(client);
});
it.after(async () => {
  await client.close();
  await plane.stop();
});

const DIGEST = `sha256:${'a'.repeat(64)}`;
const GOOD = {
  Dataset: { source: { type: 'HTTP', http: { url: 'http://127.0.0.1/a.tar', digest: DIGEST } } },
  TrainingJob: {
    datasetRef: { name: 'd' },
    trainer: { type: 'BuiltIn', builtIn: { model: { name: 'ResNet20' } } },
  },
  ModelExport: { source: { type: 'TrainingJob', trainingJob: { name: 't' } } },
  InferenceService: { model: { type: 'Export', export: { name: 'e' } } },
} as const;
const RESOURCE_OF = Object.fromEntries(Object.values(RESOURCES).map((resource) => [resource.kind, resource]));

let count = 0;
function objectOf(kind: keyof typeof GOOD, spec: object, name = `o${count++}`): [Resource, KubeObject] {
  const object = { apiVersion: 'fovea.dev/v1alpha1', kind, metadata: { name, namespace: 'default' }, spec };
  return [RESOURCE_OF[kind], object as KubeObject];
}

async function refusal(kind: keyof typeof GOOD, spec: object, name?: string): Promise<string> {
  try {
    await client.create(...objectOf(kind, spec, name));
  } catch (error) {
    assert.is((error as ApiError).code, 422, (error as Error).message);
    return (error as Error).message;
  }
  assert.unreachable(`${kind} ${JSON.stringify(spec)} was taken`);
  return '';
}

it('are structural, established and as the files in crds/ say', async () => {
  for (const { plural } of KINDS) {
    const crd = parse(readFileSync(`crds/fovea.dev_${plural}.yaml`, 'utf8'));
    const live = (await client.raw(`/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${crd.metadata.name}`)) as {
      status: { conditions: { type: string; status: string; message: string }[] };
    };
    const condition = (type: string) => live.status.conditions.find((c) => c.type === type);
    assert.is(condition('Established')?.status, 'True');
    assert.is(condition('NonStructuralSchema'), undefined, condition('NonStructuralSchema')?.message);
  }
});

it('take the least that a user has to write, and add nothing to it', async () => {
  for (const [kind, spec] of Object.entries(GOOD)) {
    const created = (await client.create(...objectOf(kind as keyof typeof GOOD, spec))) as KubeObject & {
      spec: object;
    };
    // The scale subresource needs spec.replicas; it is in no input digest.
    assert.equal(created.spec, kind === 'InferenceService' ? { ...spec, replicas: 1 } : spec);
  }
});

it('refuse a wrong value with the path of its field', async () => {
  const recipe = (of: object) => ({
    ...GOOD.TrainingJob,
    trainer: { type: 'BuiltIn', builtIn: { model: { name: 'ResNet20' }, recipe: of } },
  });
  const table: [keyof typeof GOOD, object, RegExp][] = [
    ['Dataset', {}, /spec\.source: Required/],
    ['Dataset', { source: { type: 'FTP' } }, /spec\.source\.type: Unsupported value: "FTP"/],
    ['Dataset', { source: { type: 'HTTP' } }, /spec\.source.*type HTTP needs http/],
    [
      'Dataset',
      { source: { type: 'PVC', http: GOOD.Dataset.source.http, pvc: { claimName: 'a' } } },
      /http is only for type HTTP/,
    ],
    ['Dataset', { source: { type: 'HTTP', http: { url: 'ftp://x/a', digest: DIGEST } } }, /spec\.source\.http\.url/],
    [
      'Dataset',
      { source: { type: 'HTTP', http: { url: 'http://x/a', digest: 'md5:1' } } },
      /spec\.source\.http\.digest/,
    ],
    ['Dataset', { source: { type: 'PVC', pvc: { claimName: 'a', path: 'a/../../b' } } }, /must not contain \.\./],
    ['Dataset', { ...GOOD.Dataset, split: { validationPercent: 50, testPercent: 50 } }, /must be below 100/],
    ['Dataset', { ...GOOD.Dataset, quarantine: { max: '200%' } }, /spec\.quarantine\.max/],
    ['TrainingJob', { ...GOOD.TrainingJob, datasetRef: {} }, /spec\.datasetRef\.name: Required/],
    ['TrainingJob', { ...GOOD.TrainingJob, workers: { replicas: 2 } }, /spec\.workers\.replicas/],
    ['TrainingJob', recipe({ epochs: 0 }), /recipe\.epochs.*greater than or equal to 1/],
    ['TrainingJob', recipe({ optimizer: { learningRate: 0 } }), /optimizer\.learningRate/],
    ['TrainingJob', recipe({ optimizer: { adamW: {} } }), /adamW is only for type AdamW/],
    ['ModelExport', { ...GOOD.ModelExport, format: { onnx: { opset: 99 } } }, /spec\.format\.onnx\.opset/],
    ['ModelExport', { ...GOOD.ModelExport, verify: { split: 'Train' } }, /spec\.verify\.split/],
    ['InferenceService', { ...GOOD.InferenceService, replicas: -1 }, /spec\.replicas/],
  ];
  for (const [kind, spec, message] of table) assert.match(await refusal(kind, spec), message);
});

it('refuse a name that leaves no room for those of its pods', async () => {
  assert.match(await refusal('Dataset', GOOD.Dataset, 'a'.repeat(41)), /at most 40 characters/);
});

it('let kubectl scale an InferenceService', async () => {
  const [resource, object] = objectOf('InferenceService', GOOD.InferenceService);
  await client.create(resource, object);
  const path = `/apis/fovea.dev/v1alpha1/namespaces/default/inferenceservices/${object.metadata?.name}/scale`;
  const scale = (await client.raw(path)) as { spec: { replicas: number } };
  assert.is(scale.spec.replicas, 1);
});

it('can be selected by the object that they name', async () => {
  const [resource, object] = objectOf('TrainingJob', { ...GOOD.TrainingJob, datasetRef: { name: 'rare' } });
  await client.create(resource, object);
  const found = await client.list(resource, { namespace: 'default', fieldSelector: 'spec.datasetRef.name=rare' });
  assert.equal(
    found.items.map((item) => item.metadata?.name),
    [object.metadata?.name],
  );
});

it.run();
