/**
 * Services on a cluster without training first: exports whose models were drawn, not learned, offered as verified ones are. The
 * operator finds their run done and leaves them alone; all that serves them is real.
 */
import { readdir, readFile } from 'node:fs/promises';
import { Agent, request } from 'undici';
import { inputDigest } from '../../operator/api/digest.ts';
import { RESOURCES } from '../../operator/api/object.ts';
import { type KubeObject, PODS } from '../../operator/kube/resources.ts';
import { GATEWAY_SELECTOR } from '../../operator/manifests/labels.ts';
import { ENV, Model } from '../../trainer-image/contract.ts';
import { openStore } from '../../trainer-image/store.ts';
import { exampleCard, exampleModel } from '../contract/example-model.ts';
import { eventually } from '../eventually.ts';
import { isTrue, type Line, modelExport, object, tinted } from './line-fixture.ts';

const SIDE = 16;

/** A model of the given first class: another name makes another digest. */
export function drawnModel(className: string): Uint8Array {
  const inputSize = { height: SIDE, width: SIDE };
  const card = exampleCard(Model.parse({ name: 'ResNet20', inputSize }), 'RGB');
  return exampleModel({ ...card, classes: [className, ...card.classes.slice(1)] }).bytes;
}

const digestOf = (letter: string) => `sha256:${letter.repeat(64)}`;

/** Lets a ModelExport offer this model, whatever it has offered before. Returns the model's digest. */
export async function offer(line: Line, namespace: string, name: string, bytes: Uint8Array): Promise<string> {
  const volume = await eventually(() =>
    line.kubectl('-n', namespace, 'get', 'pvc', 'fovea-store', '-o', 'jsonpath={.spec.volumeName}'),
  );
  const folder = await line.kubectl('get', 'pv', volume, '-o', 'jsonpath={.spec.hostPath.path}');
  const { digest, sizeBytes } = await (await openStore(folder)).putBytes(bytes);
  await line.apply(namespace, modelExport(name, 'drawn'));
  const lineage = [
    { kind: 'TrainingJob', name: 'drawn', uid: 'drawn', generation: 1, digest: digestOf('a') },
    { kind: 'Dataset', name: 'drawn', uid: 'drawn', generation: 1, digest: digestOf('b') },
  ];
  // Against the operator's own writes, which come as it first sees the object.
  await eventually(async () => {
    const found = await line.get('modelExports', namespace, name);
    const inputs = lineage.map((entry) => ({ kind: entry.kind, digest: entry.digest }));
    const made = inputDigest('modelexport', found.spec, inputs);
    const run = { generation: found.metadata.generation, inputDigest: made, artifactDigest: digest };
    const status = {
      ...found.status,
      inputDigest: made,
      lineage,
      artifact: { uri: `store://fovea-store/blobs/sha256/${digest.slice('sha256:'.length)}`, digest, sizeBytes },
      history: [{ ...run, result: 'Succeeded' }],
    };
    return line.client.replaceStatus(RESOURCES.modelExports, { ...found, status } as unknown as KubeObject);
  });
  await line.until(
    'modelExports',
    namespace,
    name,
    (found) => isTrue('Verified')(found) && found.status?.artifact?.digest === digest,
  );
  return digest;
}

export const served = (name: string, exported: string, spec: object = {}) =>
  object('InferenceService', name, {
    model: { type: 'Export', export: { name: exported } },
    runtime: {
      resources: { requests: { cpu: '50m', memory: '128Mi' }, limits: { cpu: '1', memory: '768Mi' } },
    },
    ...spec,
  });

/** Where each of the gateway's pods takes requests for this service. */
export async function gateways(line: Line, namespace: string, name: string): Promise<string[]> {
  const { items } = await line.client.list<KubeObject & { status?: { podIP?: string } }>(PODS, {
    namespace: 'fovea-system',
    labelSelector: GATEWAY_SELECTOR,
  });
  return items.map(({ status }) => `http://${status?.podIP}:8080/v1/namespaces/${namespace}/inferenceservices/${name}`);
}

/** Answers by what they were: `200 <digest of the model>`, or the status and the text. */
export interface Asked {
  sent: number;
  answers: Map<string, number>;
  /** Names of the revisions that answered. */
  revisions: Set<string>;
}

/**
 * Asks all `urls` in turn about a picture, with so many requests at once, until it is told to stop; a request that fails without
 * an answer counts under its error.
 */
export function askSteadily(urls: readonly string[], picture: Buffer, concurrency: number) {
  const asked: Asked = { sent: 0, answers: new Map(), revisions: new Set() };
  let stopped = false;
  const agent = new Agent();
  async function one(): Promise<string> {
    const url = `${urls[asked.sent++ % urls.length]}:classify`;
    try {
      const { statusCode, headers, body } = await request(url, {
        dispatcher: agent,
        method: 'POST',
        headers: { 'content-type': 'image/png' },
        body: picture,
      });
      const text = await body.text();
      if (statusCode !== 200) return `${statusCode} ${text}`;
      asked.revisions.add(String(headers['x-fovea-revision']));
      return `200 ${JSON.parse(text).modelDigest}`;
    } catch (error) {
      return String((error as NodeJS.ErrnoException).code ?? error);
    }
  }
  const clients = Array.from({ length: concurrency }, async () => {
    while (!stopped) {
      const answer = await one();
      asked.answers.set(answer, (asked.answers.get(answer) ?? 0) + 1);
    }
  });
  return {
    asked,
    /** Waits until so many were answered in all. */
    answered: (count: number, seconds = 240) =>
      eventually(
        async () => [...asked.answers.values()].reduce((a, b) => a + b, 0) >= count,
        () => `${count} answers; there are ${JSON.stringify([...asked.answers])}`,
        seconds,
      ),
    async [Symbol.asyncDispose]() {
      stopped = true;
      await Promise.all(clients);
      await agent.close();
    },
  };
}

/** Kills the process of a predictor's pod with SIGKILL. */
export async function killPredictor(podIP: string): Promise<void> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const [environ, argv] = await Promise.all(
        ['environ', 'cmdline'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')),
      );
      const isIts = environ?.split('\0').includes(`${ENV.POD_IP}=${podIP}`);
      return isIts && argv?.includes('trainer-image/main.ts\0serve') ? [Number(pid)] : [];
    }),
  );
  const [pid] = found.flat();
  if (pid === undefined) throw new Error(`no process serves at ${podIP}`);
  process.kill(pid, 'SIGKILL');
}

/**
 * The whole course of a change: a service of three replicas gets another model, and meanwhile goes from three replicas to one and
 * back, while it is asked all the time. Returns when it has come to rest and so many requests are answered.
 */
export async function changeUnderLoad(line: Line, namespace: string, requests: number) {
  const [former, latter] = [drawnModel('before'), drawnModel('after')];
  const old = await offer(line, namespace, 'changing', former);
  await line.apply(namespace, served('changing', 'changing', { replicas: 3 }));
  const rests = (digest: string, replicas: number) =>
    line.until('inferenceServices', namespace, 'changing', (found) => {
      const [newest, ...others] = found.status?.revisions ?? [];
      const isAlone = others.length === 0 && newest?.modelDigest === digest && newest.ready === replicas;
      return isAlone && isTrue('Ready', 'Serving')(found) && found.status?.replicas === replicas;
    });
  const scale = (replicas: number) =>
    line.kubectl('-n', namespace, 'scale', 'inferenceservice', 'changing', `--replicas=${replicas}`);
  const begun = await rests(old, 3);
  const urls = await gateways(line, namespace, 'changing');

  const asking = askSteadily(urls, await tinted('red', 0), 8);
  const { asked } = asking;
  try {
    await asking.answered(Math.ceil(requests / 10));
    const fresh = await offer(line, namespace, 'changing', latter);
    await line.until(
      'inferenceServices',
      namespace,
      'changing',
      ({ status }) => status?.revisions?.[0]?.modelDigest === fresh,
    );
    await scale(1);
    await line.until(
      'inferenceServices',
      namespace,
      'changing',
      ({ status }) => status?.revisions?.[0]?.replicas === 1,
    );
    await scale(3);
    await rests(fresh, 3);
    await scale(1);
    await rests(fresh, 1);
    await scale(3);
    const ended = await rests(fresh, 3);
    const names = [begun, ended].map(({ status }) => status?.revisions?.[0]?.name ?? '');
    await asking.answered(requests, 900);
    return { urls, old, fresh, names, asked };
  } finally {
    await asking[Symbol.asyncDispose]();
  }
}
