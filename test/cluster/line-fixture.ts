/** A cluster with Fovea in it for the length of a test file: operator and gateway are pods, and so is all that they make. */
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import sharp from 'sharp';
import { stringify } from 'yaml';
import { installFovea, type Kubectl, kubectlOf } from '../../examples/01-quickstart/install.ts';
import { digestOf } from '../../examples/01-quickstart/pictures.ts';
import type { Condition } from '../../operator/api/conditions.ts';
import type { DatasetStatus } from '../../operator/api/dataset.ts';
import type { InferenceServiceStatus } from '../../operator/api/inferenceservice.ts';
import type { ModelExportStatus } from '../../operator/api/modelexport.ts';
import { type FoveaObject, GROUP, RESOURCES, VERSION } from '../../operator/api/object.ts';
import type { TrainingJobStatus } from '../../operator/api/trainingjob.ts';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { makeTar } from '../../trainer-image/data/test-pictures.ts';
import { eventually } from '../eventually.ts';
import { down, up } from './cluster.ts';
import type { MountMode } from './record.ts';

type Kind = keyof typeof RESOURCES;
export type LineObject = FoveaObject<
  Record<string, unknown>,
  DatasetStatus & TrainingJobStatus & ModelExportStatus & InferenceServiceStatus
>;

export interface Line extends AsyncDisposable {
  client: Client;
  /** In any namespace; rejects with what kubectl says. */
  kubectl: Kubectl;
  /** The start of a command line of kubectl, for what goes on, as `logs -f`. */
  kubectlArgv: readonly [string, ...string[]];
  /** File that says which program stands for which image; the node reads it again when it has changed. */
  images: string;
  /** Makes a namespace with a store. */
  namespace(name: string): Promise<string>;
  /** `kubectl apply` of objects as one file. */
  apply(namespace: string, ...objects: object[]): Promise<void>;
  get(kind: Kind, namespace: string, name: string): Promise<LineObject>;
  /** The object once `is` holds for it. Throws with its status as it was last. */
  until(kind: Kind, namespace: string, name: string, is: (object: LineObject) => unknown): Promise<LineObject>;
  /** Serves a file; what an HTTP source of a Dataset needs. */
  serve(content: Buffer): { url: string; digest: string };
  /** What is kept of a run while it lasts, in the namespace's store. */
  journal(namespace: string, object: LineObject): Promise<{ states: { step: number }[] }>;
}

/** @param name of the cluster; as an ordinary user's tests share the folder of their clusters */
export async function startLine(name: string, mountMode?: MountMode): Promise<Line> {
  const quiet = { say() {}, update() {} };
  const cluster = await up({ name, mountMode, progress: quiet });
  const folder = await mkdtemp(join(tmpdir(), 'fovea-line-'));
  const files = new Map<string, Buffer>();
  const server = createServer((request, response) => {
    const content = files.get(request.url ?? '');
    response.writeHead(content ? 200 : 404, content && { 'content-length': content.length }).end(content);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const kubectl = kubectlOf(cluster);
  const client = await connect(loadConfig(cluster.kubeconfig));
  let applied = 0;

  const line: Line = {
    client,
    kubectl,
    images: join(cluster.dir, 'images.yaml'),
    kubectlArgv: [join(cluster.tools, 'kubectl'), '--kubeconfig', cluster.kubeconfig],
    async namespace(namespace) {
      await kubectl('create', 'namespace', namespace);
      const claim = { accessModes: ['ReadWriteMany'], resources: { requests: { storage: '1Gi' } } };
      const metadata = { name: 'fovea-store' };
      await line.apply(namespace, { apiVersion: 'v1', kind: 'PersistentVolumeClaim', metadata, spec: claim });
      return namespace;
    },
    async apply(namespace, ...objects) {
      const file = join(folder, `${applied++}.yaml`);
      await writeFile(file, objects.map((object) => stringify(object)).join('---\n'));
      await kubectl('-n', namespace, 'apply', '-f', file);
    },
    get: (kind, namespace, objectName) => client.get(RESOURCES[kind], namespace, objectName) as Promise<LineObject>,
    async until(kind, namespace, objectName, is) {
      let last: LineObject | undefined;
      await eventually(
        async () => {
          last = await line.get(kind, namespace, objectName);
          return is(last);
        },
        () => `${kind} ${namespace}/${objectName}: ${is}; it is ${JSON.stringify(last?.status, undefined, 1)}`,
      );
      return last!;
    },
    serve(content) {
      const digest = digestOf(content);
      const path = `/${digest.slice(7, 23)}.tar`;
      files.set(path, content);
      return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`, digest };
    },
    async journal(namespace, { metadata, status }) {
      const volume = await kubectl('-n', namespace, 'get', 'pvc', 'fovea-store', '-o', 'jsonpath={.spec.volumeName}');
      const store = await kubectl('get', 'pv', volume, '-o', 'jsonpath={.spec.hostPath.path}');
      const run = `${metadata.uid}-${status?.inputDigest?.slice('sha256:'.length, 'sha256:'.length + 16)}`;
      return JSON.parse(await readFile(join(store, 'runs', run, 'journal.json'), 'utf8'));
    },
    async [Symbol.asyncDispose]() {
      await client.close();
      server.close();
      server.closeAllConnections();
      await down({ name, purge: true });
      await rm(folder, { recursive: true });
    },
  };
  try {
    await installFovea(kubectl);
    return line;
  } catch (error) {
    await line[Symbol.asyncDispose]();
    throw error;
  }
}

/** An object of one of the four kinds. */
export const object = (kind: string, name: string, spec: object) => ({
  apiVersion: `${GROUP}/${VERSION}`,
  kind,
  metadata: { name },
  spec,
});

/** The condition of this type, if it speaks of the present spec. */
export function condition({ metadata, status }: LineObject, type: string): Condition | undefined {
  return status?.conditions?.find((c) => c.type === type && c.observedGeneration === metadata.generation);
}

export const isTrue = (type: string, reason?: string) => (object: LineObject) => {
  const found = condition(object, type);
  return found?.status === 'True' && (reason === undefined || found.reason === reason);
};

const CLASSES = ['blue', 'green', 'red'];
const SIDE = 16;

/** Noise whose tint is the class; the same bytes each time, and no two alike. PNG, 16 by 16. */
export function tinted(className: string, index: number): Promise<Buffer> {
  const channel = { red: 0, green: 1, blue: 2 }[className];
  let state = index * CLASSES.length + CLASSES.indexOf(className) + 1;
  const pixels = Uint8Array.from({ length: SIDE * SIDE * 3 }, (_, i) => {
    // xorshift32 (Marsaglia 2003)
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return 60 + ((state >>> 0) % 120) + (i % 3 === channel ? 70 : 0);
  });
  return sharp(pixels, { raw: { width: SIDE, height: SIDE, channels: 3 } })
    .png()
    .toBuffer();
}

/** A tar with a folder a class; the first `broken` files of the first class are no pictures. */
export async function pictures(perClass: number, { broken = 0 } = {}): Promise<Buffer> {
  const entries = CLASSES.flatMap((className) =>
    Array.from({ length: perClass }, async (_, i) => ({
      name: `${className}/${i}.png`,
      mtime: new Date(0),
      content: className === CLASSES[0] && i < broken ? Buffer.from('no picture') : await tinted(className, i),
    })),
  );
  return makeTar(await Promise.all(entries));
}

/** Pictures of each class, of which 40 % validate: 288 in all, and a verification needs 256. */
const PER_CLASS = 240;

/** A Dataset that trains and verifies within seconds. */
export async function colours(line: Line, name: string) {
  const http = line.serve(await pictures(PER_CLASS));
  const split = { validationPercent: 40, testPercent: 0 };
  return object('Dataset', name, { source: { type: 'HTTP', http }, split });
}

const RECIPE = {
  epochs: 2,
  batchSize: 32,
  optimizer: { type: 'SGD', learningRate: 0.05 },
  augmentations: [],
};

export const trainingJob = (name: string, dataset: string, recipe: object = {}, spec: object = {}) =>
  object('TrainingJob', name, {
    datasetRef: { name: dataset },
    trainer: {
      type: 'BuiltIn',
      builtIn: {
        model: { name: 'ResNet20', inputSize: { height: SIDE, width: SIDE } },
        recipe: { ...RECIPE, ...recipe },
      },
    },
    ...spec,
  });

export const modelExport = (name: string, job: string, verify: object = {}) =>
  object('ModelExport', name, { source: { type: 'TrainingJob', trainingJob: { name: job } }, verify });

export const inferenceService = (name: string, exported: string) =>
  object('InferenceService', name, { model: { type: 'Export', export: { name: exported } } });

/** The label that the service gives a picture. Throws with the answer if it is none. */
export async function classify({ status }: LineObject, picture: Buffer): Promise<string> {
  const response = await fetch(`${status?.url}:classify`, {
    method: 'POST',
    headers: { 'content-type': 'image/png' },
    body: picture,
  });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`${response.status}: ${text}`);
  return JSON.parse(text).predictions[0].label;
}

/** Asks a service about pictures until it is disposed of, some 20 times a second, and counts the answers. */
export async function askAllTheTime(service: LineObject) {
  const picture = await tinted('red', 0);
  const answers = { good: 0, bad: [] as string[] };
  const ended = new AbortController();
  const asking = (async () => {
    while (!ended.signal.aborted) {
      await classify(service, picture).then(
        () => (answers.good += 1),
        (error: Error) => answers.bad.push(error.message),
      );
      await delay(50);
    }
  })();
  return {
    answers,
    async [Symbol.asyncDispose]() {
      ended.abort();
      await asking;
    },
  };
}
