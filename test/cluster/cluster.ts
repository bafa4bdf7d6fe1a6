/**
 * A disposable Kubernetes cluster without containers or root: `up`, `down` and `status` of one by name.
 *
 * Its folder holds all of it: `cluster.json` (ports and networks), `pki/`, `kubeconfig`, `etcd/`, `volumes/` (the claims'
 * bytes), `node/` (the pods), `node.yaml`, `images.yaml` and `logs/`. Every step can be repeated, and looks at what
 * runs rather than at what was recorded, so it may be killed anywhere and run again.
 */
import type { ChildProcess } from 'node:child_process';
import { access, mkdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { stderr } from 'node:process';
import { stringify } from 'yaml';
import { kubeBinary, kubectlBinaries, processNodeBinary } from './build.ts';
import { command } from './command.ts';
import { argumentsOf, CONTROL_PLANE } from './components.ts';
import { accessOf, keyFile, kubeconfigFile, makeKeys, writeKubeconfigs } from './credentials.ts';
import { writeWhole } from './files.ts';
import { healthCheck, nodeCheck } from './health.ts';
import { ownImages } from './images.ts';
import { locked } from './lock.ts';
import { becomesFree } from './ports.ts';
import { preflight } from './preflight.ts';
import { componentOf, processesOf, type Running, ready, start, stop } from './processes.ts';
import { type Progress, progressOn } from './progress.ts';
import {
  type ClusterRecord,
  COMPONENTS,
  type Component,
  folderOf,
  type MountMode,
  newPorts,
  newRecord,
  readRecord,
  writeRecord,
} from './record.ts';
import { request } from './requests.ts';

export const DEFAULT_NAME = 'fovea';
const NODE_NAME = 'local';

/** Seconds within which a component must be ready; generous, as the machine may be busy. */
const READY_SECONDS = 60;
/** Seconds that a component has to end by itself. */
const GRACE_SECONDS = 15;
/** Seconds after which pods end whose node is gone and does not come back. */
const ORPHAN_SECONDS = 30;

export interface Cluster {
  name: string;
  /** The cluster's folder. */
  dir: string;
  /** File; its user may do everything. */
  kubeconfig: string;
  /** URL of the API server. */
  server: string;
  /** Folder with kubectl and helm. */
  tools: string;
}

export interface UpOptions {
  /** Default: fovea. */
  name?: string;
  /** File that maps image names to commands, kept for the next `up`. Default: the kept one, else fovea's own images. */
  images?: string;
  /** How the node shows mounts to pods; kept for the next `up`. Default: the kept one, else `auto` (see docs/cluster.md). */
  mountMode?: MountMode;
  progress?: Progress;
}

/**
 * Brings the cluster up, from whatever state it is in. What already runs as it should is left alone.
 *
 * @throws Error naming what is missing on the machine; ComponentFailed naming the component, with the end of its log
 */
export async function up(options: UpOptions = {}): Promise<Cluster> {
  const { name = DEFAULT_NAME, progress = progressOn(stderr) } = options;
  const dir = folderOf(name);
  const images = options.images === undefined ? undefined : await readableFile(options.images);
  await preflight();
  const programs = { kube: await kubeBinary(progress), processNode: await processNodeBinary(progress) };
  const tools = await kubectlBinaries(progress);
  const waiting = () => progress.say(`Waiting for another command on the cluster ${name}`);
  return locked(
    dir,
    async () => {
      const before = (await readRecord(name)) ?? (await newRecord(name));
      const record: ClusterRecord = {
        ...before,
        programs,
        images: images ?? before.images,
        mountMode: options.mountMode ?? before.mountMode,
      };
      await prepare(record, progress);
      const cluster = clusterOf(record, tools);
      await startMissing(record, cluster, progress);
      await waitForServiceAccount(cluster);
      return cluster;
    },
    waiting,
  );
}

/** Ends what should not run as it does, and writes all files that components read. */
async function prepare(record: ClusterRecord, progress: Progress): Promise<void> {
  const { name } = record;
  const dir = folderOf(name);
  const nodeFile = join(dir, 'node.yaml');
  await writeRecord(record);
  await mkdir(join(dir, 'logs'), { recursive: true, mode: 0o700 });

  const hasKeys = await access(join(dir, 'pki')).then(
    () => true,
    () => false,
  );
  const running = await componentsOf(dir);
  const stale = running.filter(({ component, argv }) => !hasKeys || !isAsWanted(argv, component, record));
  await stop(stale, GRACE_SECONDS);

  const absent = COMPONENTS.filter((c) => !running.some((r) => r.component === c && !stale.includes(r)));
  const busy: Component[] = [];
  for (const component of absent) if (!(await becomesFree(record.ports[component]))) busy.push(component);
  if (busy.length > 0) {
    progress.say(`Other programs listen on the ports of ${busy.join(', ')}: the cluster moves to new ones`);
    await stop(running, GRACE_SECONDS);
    record.ports = await newPorts(name);
    await writeRecord(record);
  }

  if (!hasKeys) await makeKeys(dir, NODE_NAME, record.networks.services);
  await writeKubeconfigs(dir, `fovea-${name}`, serverOf(record));
  await writeWhole(join(dir, 'images.yaml'), ownImages());
  const changed = await writeWhole(nodeFile, nodeConfiguration(record));
  // The node reads its file once. Its pods go on without it, and the new one takes them over.
  if (changed)
    await stop(
      (await componentsOf(dir)).filter((r) => r.component === 'process-node'),
      GRACE_SECONDS,
    );
}

async function startMissing(record: ClusterRecord, cluster: Cluster, progress: Progress): Promise<void> {
  const { dir } = cluster;
  const running = await componentsOf(dir);
  const ensure = async (component: Component) => {
    const log = logFile(dir, component);
    const check = await checkOf(record, component);
    let child: ChildProcess | undefined;
    if (!running.some((r) => r.component === component)) {
      child = await start({ argv: argvOf(component, record), log, diesWith: 'Never' });
    }
    progress.update(`${component}: waiting until it is ready`);
    await ready({ name: component, log }, child, check, READY_SECONDS);
  };
  await ensure('etcd');
  await ensure('kube-apiserver');
  await Promise.all([
    ensure('kube-controller-manager'),
    ensure('kube-scheduler'),
    // Its provisioner would be refused without the rights that come with the storage class.
    installManifests(cluster).then(() => ensure('process-node')),
  ]);
}

/** The storage class, the rights of who provisions its volumes, and those of the API server on the node, for logs and exec. */
async function installManifests({ kubeconfig, tools }: Cluster): Promise<void> {
  const manifests = join(import.meta.dirname, 'node', 'manifests');
  const apply = ['apply', '--server-side', '--force-conflicts', '--filename', manifests];
  await command(join(tools, 'kubectl'), ['--kubeconfig', kubeconfig, ...apply]);
}

/** Pods are refused in a namespace without a service account, which the controllers make in their own time. */
async function waitForServiceAccount({ dir, server }: Cluster): Promise<void> {
  const admin = await accessOf(dir, 'admin', server);
  const exists = async () => {
    const { status } = await request(admin, '/api/v1/namespaces/default/serviceaccounts/default');
    return status === 200 ? undefined : 'the namespace default has no service account yet';
  };
  const log = logFile(dir, 'kube-controller-manager');
  await ready({ name: 'kube-controller-manager', log }, undefined, exists, READY_SECONDS);
}

export interface DownOptions {
  name?: string;
  /** Also remove the cluster's folder: its objects and its volumes. */
  purge?: boolean;
}

/** Ends every process of the cluster, its pods among them. Says whether there was such a cluster. */
export async function down({ name = DEFAULT_NAME, purge = false }: DownOptions = {}): Promise<boolean> {
  const dir = folderOf(name);
  return locked(dir, async () => {
    const running = await componentsOf(dir);
    const stopAll = (...components: Component[]) =>
      stop(
        running.filter((r) => components.includes(r.component)),
        GRACE_SECONDS,
      );
    // From the node to the database, so that none complains of what it needs being gone.
    await stopAll('process-node');
    const record = await readRecord(name);
    const nodeFile = join(dir, 'node.yaml');
    if (await exists(nodeFile)) await command(await nodeProgram(record), ['--config', nodeFile, '--down']);
    await stopAll('kube-controller-manager', 'kube-scheduler');
    await stopAll('kube-apiserver');
    await stopAll('etcd');
    if (purge) await rm(dir, { recursive: true, force: true });
    return record !== undefined;
  });
}

/** The node that the cluster was started with; built again if somebody has emptied the cache. */
async function nodeProgram(record: ClusterRecord | undefined): Promise<string> {
  const last = record?.programs?.processNode;
  return last && (await exists(last)) ? last : processNodeBinary();
}

export interface ComponentStatus {
  component: Component;
  port: number;
  /** Absent when it does not run. */
  pid?: number;
  uptimeSeconds?: number;
  /** Absent when it is healthy; else what is wrong. */
  problem?: string;
  log: string;
}

export interface ClusterStatus {
  name: string;
  dir: string;
  kubeconfig: string;
  server: string;
  components: ComponentStatus[];
}

/** What runs of the cluster, and how well; undefined if there is no such cluster. */
export async function status({ name = DEFAULT_NAME }: { name?: string } = {}): Promise<ClusterStatus | undefined> {
  const record = await readRecord(name);
  if (!record) return undefined;
  const dir = folderOf(name);
  const running = await componentsOf(dir);
  const components = COMPONENTS.map(async (component): Promise<ComponentStatus> => {
    const known = { component, port: record.ports[component], log: logFile(dir, component) };
    const process = running.find((r) => r.component === component);
    if (!process) return { ...known, problem: 'not running' };
    const problem = await (await checkOf(record, component))();
    return { ...known, pid: process.pid, uptimeSeconds: process.uptimeSeconds, problem };
  });
  const { kubeconfig, server } = clusterOf(record, '');
  return { name, dir, kubeconfig, server, components: await Promise.all(components) };
}

/** The cluster as `up` gave it, without looking whether it runs; undefined if there is no such cluster. */
export async function find({ name = DEFAULT_NAME }: { name?: string } = {}): Promise<Cluster | undefined> {
  const record = await readRecord(name);
  return record && clusterOf(record, await kubectlBinaries());
}

/** Log file of a component. */
export const logFile = (dir: string, component: Component) => join(dir, 'logs', `${component}.log`);

function clusterOf(record: ClusterRecord, tools: string): Cluster {
  const dir = folderOf(record.name);
  return { name: record.name, dir, kubeconfig: kubeconfigFile(dir, 'admin'), server: serverOf(record), tools };
}

const serverOf = (record: ClusterRecord) => `https://127.0.0.1:${record.ports['kube-apiserver']}`;

/** The components that run of the cluster in `dir`. */
async function componentsOf(dir: string): Promise<(Running & { component: Component })[]> {
  return (await processesOf(dir)).flatMap((running) => {
    const component = COMPONENTS.find((c) => c === componentOf(running));
    return component ? [{ ...running, component }] : [];
  });
}

/** Command line of a component. */
function argvOf(component: Component, record: ClusterRecord): string[] {
  const dir = folderOf(record.name);
  const { kube, processNode } = record.programs!;
  if (component === 'process-node') return [processNode, '--config', join(dir, 'node.yaml')];
  return [kube, ...argumentsOf(component, { dir, ports: record.ports, servicesNetwork: record.networks.services })];
}

const isAsWanted = (argv: readonly string[], component: Component, record: ClusterRecord) =>
  argv.join('\0') === argvOf(component, record).join('\0');

/** The process node's configuration. */
function nodeConfiguration(record: ClusterRecord): string {
  const dir = folderOf(record.name);
  return stringify({
    name: NODE_NAME,
    kubeconfig: kubeconfigFile(dir, 'node'),
    provisionerKubeconfig: kubeconfigFile(dir, 'provisioner'),
    listen: `127.0.0.1:${record.ports['process-node']}`,
    tls: {
      certFile: keyFile(dir, 'node.crt'),
      keyFile: keyFile(dir, 'node.key'),
      clientCAFile: keyFile(dir, 'ca.crt'),
    },
    stateDir: join(dir, 'node'),
    volumesDir: join(dir, 'volumes'),
    imagesFile: record.images ?? join(dir, 'images.yaml'),
    mountMode: record.mountMode ?? 'auto',
    podNetwork: record.networks.pods,
    orphanSeconds: ORPHAN_SECONDS,
  });
}

async function checkOf(record: ClusterRecord, component: Component): Promise<() => Promise<string | undefined>> {
  const dir = folderOf(record.name);
  const controlPlane = CONTROL_PLANE.find((c) => c === component);
  if (controlPlane) return healthCheck(dir, controlPlane, record.ports[controlPlane]);
  return nodeCheck(dir, NODE_NAME, serverOf(record), record.ports['process-node']);
}

async function readableFile(path: string): Promise<string> {
  const absolute = resolve(path);
  await access(absolute).catch((error) => {
    throw new Error(`--images=${path}: ${error.message}`);
  });
  return absolute;
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );
