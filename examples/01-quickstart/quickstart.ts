/**
 * The quickstart, started by run.mjs: a cluster, Fovea in it, four YAML files, and pictures classified by what came of them.
 * All that it does to the cluster it does as a user would, with kubectl; what it shows, it reads through the API server.
 *
 * Exits 0 only if every stage is Ready, the served accuracy is at least 0.85 and the served labels are those of the export on
 * 99.9 % of the pictures; 1 if not, with what the object says of it; 130 after Ctrl-C, which leaves the cluster running.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { argv, exit, stderr, stdout } from 'node:process';
import sharp from 'sharp';
import { parse } from 'yaml';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { reflect } from '../../operator/kube/reflector.ts';
import { CLAIMS, type KubeObject } from '../../operator/kube/resources.ts';
import { type Cluster, down, up } from '../../test/cluster/cluster.ts';
import { progressOn } from '../../test/cluster/progress.ts';
import { cacheDir } from '../../test/cluster/xdg.ts';
import { blobPath } from '../../trainer-image/contract.ts';
import { type Classified, classifyAll, compare, readPredictions } from './classification.ts';
import { drawInColour, drawInText, sideBySide } from './drawing.ts';
import { installFovea, kubectlOf } from './install.ts';
import { cachedTar, fashionTar, SIDE, serveAt, testPictures } from './pictures.ts';
import { count, duration, type Kind, type Observed, STAGES, type Stage, stageOf } from './stages.ts';
import { viewOn } from './view.ts';

const CLUSTER = 'quickstart';
const NAMESPACE = 'default';
/** Name of all four objects. */
const NAME = 'fashion';
const YAML = import.meta.dirname;

/** Test pictures of each of the ten classes that are classified. */
const CLASSIFIED = 100;
const LEAST_ACCURACY = 0.85;
const LEAST_AGREEMENT = 0.999;
/** Minutes after which a line that has not ended is given up: several times what it takes on two slow cores. */
const PATIENCE = 40;

/** A message for people, without a stack. */
class QuickstartError extends Error {}

const progress = progressOn(stderr);
const say = (text = '') => stdout.write(`${text}\n`);
const started = performance.now();
const elapsed = () => duration((performance.now() - started) / 1000);

async function main(): Promise<number> {
  const words = argv.slice(2);
  const unknown = words.find((word) => word !== '--down');
  if (unknown) throw new QuickstartError(`there is no option ${unknown}, only --down, which removes the cluster`);
  if (words.includes('--down')) {
    const found = await down({ name: CLUSTER, purge: true });
    say(found ? 'The quickstart’s cluster is gone, with all that was in it.' : 'There is no quickstart cluster.');
    return 0;
  }

  say('Fovea quickstart: from 22,000 pictures of clothes to a verified, answering endpoint.\n');
  // First: a port that is taken is no reason to wait for a cluster.
  const { tar, stopServing } = await servePictures();
  const cluster = await up({ name: CLUSTER, progress });
  say(`  A Kubernetes API server of your own answers at ${cluster.server}`);
  const kubectl = kubectlOf(cluster);
  const client = await connect(loadConfig(cluster.kubeconfig));
  try {
    await installFovea(kubectl, progress.update);
    say('  The operator and the gateway run in it, in the namespace fovea-system\n');
    say('$ kubectl apply -f examples/01-quickstart/');
    for (const line of (await kubectl('apply', '-f', YAML)).trim().split('\n')) say(`  ${line}`);
    say();
    const objects = await follow(client);
    return await classifyAndJudge(client, objects, cluster, tar);
  } finally {
    stopServing();
    await client.close();
  }
}

/** Serves the tar where the Dataset will look for it. */
async function servePictures(): Promise<{ tar: Buffer; stopServing: () => void }> {
  const { url, digest } = parse(await readFile(join(YAML, 'dataset.yaml'), 'utf8')).spec.source.http;
  const folder = join(cacheDir(), 'pictures');
  await mkdir(folder, { recursive: true });
  progress.update('Pictures: writing Fashion-MNIST as PNG files in a tar');
  const tar = await cachedTar(digest, folder, fashionTar);
  try {
    return { tar, stopServing: await serveAt(url, tar, digest) };
  } catch (error) {
    throw new QuickstartError((error as Error).message);
  }
}

type Objects = Record<Kind, Observed>;

/** Shows the four objects until all are ready. Throws what one of them says when it has failed. */
async function follow(client: Client): Promise<Objects> {
  const objects: Partial<Objects> = {};
  const stages = (): Stage[] => STAGES.map(({ kind }) => stageOf(kind, objects[kind]));
  const view = viewOn(stdout);
  const ended = Promise.withResolvers<void>();
  const look = () => {
    const now = stages();
    view.show(now);
    const failed = now.find(({ state }) => state === 'Failed');
    if (failed) ended.reject(new QuickstartError(whatToDo(failed)));
    else if (now.every(({ state }) => state === 'Ready')) ended.resolve();
  };
  const patience = setTimeout(() => {
    const open = stages().find(({ state }) => state !== 'Ready');
    ended.reject(new QuickstartError(`${open?.kind} ${NAME} is not ready after ${PATIENCE} min: ${open?.detail}`));
  }, PATIENCE * 60_000);
  const reflectors = STAGES.map((resource) =>
    reflect<KubeObject & Observed>(client, {
      resource,
      select: { fieldSelector: `metadata.name=${NAME}` },
      namespaces: [NAMESPACE],
      onChange: ({ type, object }) => {
        objects[resource.kind] = type === 'set' ? object : undefined;
        // The first look is at all four.
        if (reflectors.every(({ hasSynced }) => hasSynced())) look();
      },
    }),
  );
  try {
    await Promise.all(reflectors.map(({ synced }) => synced));
    look();
    await ended.promise;
    return objects as Objects;
  } finally {
    view.end();
    clearTimeout(patience);
    await Promise.all(reflectors.map(({ stop }) => stop()));
  }
}

function whatToDo({ kind, detail }: Stage): string {
  return [
    `${kind} ${NAME} has failed. Its condition says:`,
    `  ${detail}`,
    `More: kubectl describe ${kind.toLowerCase()} ${NAME}. Once its cause is mended, this tries again:`,
    `  kubectl annotate --overwrite ${kind.toLowerCase()} ${NAME} fovea.dev/requested-at=$(date +%s)`,
  ].join('\n');
}

async function classifyAndJudge(client: Client, objects: Objects, cluster: Cluster, tar: Buffer): Promise<number> {
  const url = objects.InferenceService.status?.url ?? '';
  const pictures = await testPictures(tar, CLASSIFIED);
  say(`\n  Sending ${count(pictures.length)} of the test pictures, which no training has seen, to`);
  say(`  ${url}:classify`);
  const from = performance.now();
  const classified = await classifyAll(url, pictures, (done) =>
    progress.update(`${done} of ${pictures.length} classified`, done / pictures.length),
  );
  const seconds = (performance.now() - from) / 1000;
  const classes = (objects.Dataset.status?.classes ?? []).map(({ name }) => name);
  const digest = objects.ModelExport.status?.verification?.predictions ?? '';
  const predictions = readPredictions(await readBlob(client, digest), classes);
  const { total, accuracy, agreement } = compare(classified, predictions);

  progress.say('');
  await show(classified);
  const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
  say(`\n  ${count(total)} answers in ${duration(seconds)}, ${count(Math.round(total / seconds))} a second`);
  say(`  accuracy ${percent(accuracy)}; the same label as the export's own prediction for ${percent(agreement)}`);
  if (accuracy < LEAST_ACCURACY) {
    throw new QuickstartError(`the served accuracy ${accuracy} is below ${LEAST_ACCURACY}`);
  }
  if (agreement < LEAST_AGREEMENT) {
    throw new QuickstartError(
      `the service and the export agree on ${agreement} of the pictures, below ${LEAST_AGREEMENT}`,
    );
  }
  say(`\nDone in ${elapsed()}. What to try next:\n`);
  for (const line of nextSteps(cluster)) say(`  ${line}`);
  return 0;
}

interface Claim extends KubeObject {
  spec: { volumeName?: string };
}
interface Volume extends KubeObject {
  spec: { hostPath?: { path: string } };
}
const VOLUMES = { group: '', version: 'v1', plural: 'persistentvolumes', kind: 'PersistentVolume', namespaced: false };

/** A blob of the store: in this cluster a claim's volume is a folder of this machine. */
async function readBlob(client: Client, digest: string): Promise<string> {
  const claim = await client.get<Claim>(CLAIMS, NAMESPACE, 'fovea-store');
  const volume = await client.get<Volume>(VOLUMES, undefined, claim.spec.volumeName ?? '');
  return readFile(join(volume.spec.hostPath?.path ?? '', blobPath(digest)), 'utf8');
}

/** Some of the pictures, one of a class each, with what the service took them for. */
async function show(classified: readonly Classified[]): Promise<void> {
  const colours = stdout.isTTY && stdout.hasColors(256);
  const perRow = Math.max(1, Math.min(4, Math.floor(((stdout.columns || 100) - 2) / (SIDE + 2))));
  const shown = [...new Map(classified.map((one) => [one.picture.className, one])).values()].slice(0, perRow);
  const drawings = await Promise.all(
    shown.map(async ({ picture, label, probability }) => {
      const pixels = new Uint8Array(await sharp(picture.png).toColourspace('b-w').raw().toBuffer());
      return {
        lines: colours ? drawInColour(pixels, SIDE) : drawInText(pixels, SIDE),
        caption: `${label} ${(probability * 100).toFixed(0)} %${label === picture.className ? '' : ` (is ${picture.className})`}`,
      };
    }),
  );
  for (const line of sideBySide(drawings, SIDE)) say(`  ${line}`);
}

function nextSteps({ name }: Cluster): string[] {
  const steps = [
    [`eval "$(npm run --silent cluster -- env --name=${name})"`, 'kubectl talks to this cluster'],
    [`kubectl describe trainingjob ${NAME}`, 'what was done, and why'],
    [`kubectl scale inferenceservice ${NAME} --replicas=2`, 'a second replica behind the same URL'],
    ['examples/01-quickstart/README.md', 'the same with your own pictures'],
    ['npm run quickstart -- --down', 'removes all of it'],
  ] as const;
  const width = Math.max(...steps.map(([what]) => what.length));
  return steps.map(([what, why]) => `${what.padEnd(width)}   ${why}`);
}

process.on('SIGINT', () => {
  say('\nStopped. The cluster goes on with its work: run it again to go on watching, or clean up with');
  say('  npm run quickstart -- --down');
  exit(130);
});

try {
  exit(await main());
} catch (error) {
  stderr.write(
    `\nquickstart: ${error instanceof QuickstartError ? error.message : ((error as Error).stack ?? error)}\n`,
  );
  exit(1);
}
