import { globSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { customResourceDefinition } from '../../operator/api/crd.ts';
import { KINDS } from '../../operator/api/kinds.ts';
import { RESOURCES } from '../../operator/api/object.ts';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import type { KubeObject, Resource } from '../../operator/kube/resources.ts';
import { kubectlBinaries } from '../cluster/build.ts';
import { command } from '../cluster/command.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { installKinds } from './kinds.ts';

const it = suite('the kinds in kubectl');

const EXAMPLES = 'operator/api/examples';

let plane: ControlPlane;
let client: Client;
let kubectl: (...args: string[]) => Promise<string>;
let folder: string;

it.before(async () => {
  plane = await startControlPlane();
  client = await connect(loadConfig(plane.kubeconfig));
  await installKinds(client);
  folder = await mkdtemp(path.join(tmpdir(), 'fovea-kinds-'));
  const program = path.join(await kubectlBinaries(), 'kubectl');
  kubectl = (...args) =>
    command(program, ['--kubeconfig', plane.kubeconfig, '--cache-dir', path.join(folder, 'cache'), ...args]);
});
it.after(async () => {
  await client?.close();
  await plane?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** kubectl's words on what it refuses. */
async function refusal(...args: string[]): Promise<string> {
  try {
    return assert.unreachable(`kubectl took ${args.join(' ')}: ${await kubectl(...args)}`) as never;
  } catch (error) {
    return (error as Error).message;
  }
}

it('are structural and established, and the server takes every word of them', async () => {
  for (const kind of KINDS) {
    interface Definition extends KubeObject {
      spec: { versions: object[] };
      status: { conditions: { type: string; status: string; message: string }[] };
    }
    const name = `${kind.plural}.fovea.dev`;
    const { spec, status } = JSON.parse(await kubectl('get', 'crd', name, '-o', 'json')) as Definition;
    const conditions = Object.fromEntries(status.conditions.map((c) => [c.type, c.status]));
    assert.is(conditions.Established, 'True');
    assert.is(conditions.NonStructuralSchema, undefined);
    // What a server does not know it drops.
    const [declared] = JSON.parse(JSON.stringify(customResourceDefinition(kind).spec.versions));
    assert.equal(withoutDefaults(spec.versions[0]), withoutDefaults(declared));
  }
});

/** Without the priority 0 that the server leaves out of a column. */
function withoutDefaults(version: object): object {
  return JSON.parse(JSON.stringify(version, (key, value) => (key === 'priority' && value === 0 ? undefined : value)));
}

it('take the examples of the reference pages and of the quickstart without an unknown field', async () => {
  for (const file of globSync([`${EXAMPLES}/*.yaml`, 'examples/*/*.yaml']).sort()) {
    // One folder's objects have the same names as another's.
    await kubectl('apply', '--dry-run=server', '--validate=strict', '-f', file);
  }
});

it('have no room for a field that does not exist, and kubectl says which', async () => {
  const file = path.join(folder, 'dataset.yaml');
  const good = await readFile(`${EXAMPLES}/dataset.yaml`, 'utf8');
  await writeFile(file, good.replace('  duplicates: Drop', '  duplicates: Drop\n  refreshIntervalSeconds: 60'));
  assert.match(await refusal('apply', '-f', file), /unknown field "spec\.refreshIntervalSeconds"/);
});

const STATUS: Record<string, [Resource, object]> = {
  dataset: [
    RESOURCES.datasets,
    {
      conditions: [condition('Ready', 'True', 'Packed')],
      samples: 70000,
      classCount: 10,
      quarantined: { count: 3, first: [] },
    },
  ],
  trainingjob: [
    RESOURCES.trainingJobs,
    {
      conditions: [condition('Ready', 'Unknown', 'Running')],
      workers: { desired: 2, ready: 2, lost: 0 },
      progress: {
        stage: 'training',
        percent: 40,
        epoch: 12,
        metrics: [
          { name: 'TrainLoss', value: '0.412' },
          { name: 'ValidationAccuracy', value: '0.913' },
        ],
      },
    },
  ],
  modelexport: [
    RESOURCES.modelExports,
    {
      conditions: [condition('Ready', 'True', 'Verified'), condition('Verified', 'True', 'Verified')],
      verification: { accuracy: '0.912', sourceAccuracy: '0.913', dropPoints: '0.1', sizeBytes: 1120000 },
    },
  ],
  inferenceservice: [
    RESOURCES.inferenceServices,
    {
      conditions: [condition('Ready', 'False', 'Suspended'), condition('Available', 'True', 'ReplicasReady')],
      replicas: 2,
      selector: 'fovea.dev/service=fashion',
      url: 'http://gateway/v1/namespaces/default/inferenceservices/fashion',
    },
  ],
};

function condition(type: string, status: string, reason: string) {
  const lastTransitionTime = '2026-01-01T00:00:00Z';
  return { type, status, reason, message: '', observedGeneration: 1, lastTransitionTime };
}

it('show their state as columns, under their short names', async () => {
  await kubectl('apply', '-f', EXAMPLES);
  for (const [resource, status] of Object.values(STATUS)) {
    const object = await client.get<KubeObject & { status?: object }>(resource, 'default', 'fashion');
    await client.replaceStatus(resource, { ...object, status });
  }
  const expected: [string, string, string][] = [
    ['fds', 'NAME READY REASON SAMPLES CLASSES QUARANTINED AGE', 'fashion True Packed 70000 10 3'],
    [
      'ftj',
      'NAME READY REASON PROGRESS EPOCH LOSS ACCURACY WORKERS AGE',
      'fashion Unknown Running 40 12 0.412 0.913 2',
    ],
    ['fme', 'NAME VERIFIED REASON ACCURACY DROP SIZE AGE', 'fashion True Verified 0.912 0.1 1120000'],
    [
      'fis',
      'NAME READY AVAILABLE REASON REPLICAS URL AGE',
      'fashion False True Suspended 2 http://gateway/v1/namespaces/default/inferenceservices/fashion',
    ],
  ];
  for (const [shortName, head, row] of expected) {
    const lines = (await kubectl('get', shortName)).trimEnd().split('\n');
    const words = lines.map((line) => line.trim().replace(/\s+/g, ' '));
    assert.is(words[0], head);
    assert.ok(words[1].startsWith(`${row} `), words[1]);
  }
});

it('are listed together by their category', async () => {
  const names = (await kubectl('get', 'fovea', '-o', 'name')).trim().split('\n').sort();
  assert.equal(names, KINDS.map(({ kind }) => `${kind.toLowerCase()}.fovea.dev/fashion`).sort());
});

it('explain a field with its default', async () => {
  const words = await kubectl('explain', 'trainingjob.spec.trainer.builtIn.recipe.epochs');
  assert.match(words, /Passes over the training split\. Default: `30`\./);
});

it('scale an InferenceService that says nothing of replicas', async () => {
  const file = path.join(folder, 'service.yaml');
  const full = await readFile(`${EXAMPLES}/inferenceservice.yaml`, 'utf8');
  await writeFile(file, full.replace('name: fashion', 'name: scaled'));
  await kubectl('apply', '-f', file);
  const scale = () => client.raw('/apis/fovea.dev/v1alpha1/namespaces/default/inferenceservices/scaled/scale');
  assert.is(((await scale()) as { spec: { replicas: number } }).spec.replicas, 1);
  await kubectl('scale', 'fis', 'scaled', '--replicas', '3');
  assert.is(((await scale()) as { spec: { replicas: number } }).spec.replicas, 3);
  assert.match(await refusal('scale', 'fis', 'scaled', '--replicas', '1001'), /less than or equal to 1000/);
});

it('show the selector of their pods to an autoscaler', async () => {
  const path = '/apis/fovea.dev/v1alpha1/namespaces/default/inferenceservices/fashion/scale';
  const { status } = (await client.raw(path)) as { status: { replicas: number; selector: string } };
  assert.equal(status, { replicas: 2, selector: 'fovea.dev/service=fashion' });
});

it('are selected by what they name', async () => {
  const by = (resource: string, selector: string) =>
    kubectl('get', resource, '--field-selector', selector, '-o', 'name');
  assert.match(await by('ftj', 'spec.datasetRef.name=fashion'), /fashion/);
  assert.is(await by('ftj', 'spec.datasetRef.name=other'), '');
  assert.match(await by('fme', 'spec.source.trainingJob.name=fashion'), /fashion/);
  assert.match(await by('fis', 'spec.model.export.name=fashion'), /fashion/);
  assert.match(await by('fds', 'spec.source.type=HTTP'), /fashion/);
});

it.run();
