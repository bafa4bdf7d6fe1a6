/** What is kept of a cluster between its runs: `cluster.json` in its folder. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { writeWhole } from './files.ts';
import { freeNetworks, freePorts } from './ports.ts';
import { clustersDir } from './xdg.ts';

export const COMPONENTS = [
  'etcd',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'process-node',
] as const;
export type Component = (typeof COMPONENTS)[number];

/** How the node shows mounts to pods: in user namespaces, by rewriting paths, or (auto) as the machine allows. */
export const MOUNT_MODES = ['auto', 'userns', 'rewrite'] as const;
export type MountMode = (typeof MOUNT_MODES)[number];

const port = z.int().min(1).max(65535);
const network = z.string().regex(/^127\.\d{1,3}$/);

const recordSchema = z.strictObject({
  name: z.string(),
  ports: z.strictObject({
    etcd: port,
    'kube-apiserver': port,
    'kube-controller-manager': port,
    'kube-scheduler': port,
    'process-node': port,
  }),
  networks: z.strictObject({ pods: network, services: network }),
  /** The file that maps image names to commands; absent: the one made for fovea's own images. */
  images: z.string().optional(),
  mountMode: z.enum(MOUNT_MODES).optional(),
  /** The programs it was last started with, so that ending it never needs a build. */
  programs: z.strictObject({ kube: z.string(), processNode: z.string() }).optional(),
});

export type ClusterRecord = z.infer<typeof recordSchema>;

/**
 * The folder of the cluster called `name`.
 *
 * @throws Error if that can't be a cluster's name
 */
export function folderOf(name: string): string {
  if (!/^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/.test(name)) {
    throw new Error(`--name=${name}: a cluster's name has at most 40 lower case letters, digits and inner hyphens`);
  }
  return join(clustersDir(), name);
}

/** Names of the clusters that have a folder. */
export async function clusterNames(): Promise<string[]> {
  const entries = await readdir(clustersDir(), { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort();
}

/**
 * A cluster's record, undefined if there is none.
 *
 * @throws Error naming the file and what is wrong in it
 */
export async function readRecord(name: string): Promise<ClusterRecord | undefined> {
  const path = join(folderOf(name), 'cluster.json');
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return recordSchema.parse(JSON.parse(text));
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : (error as Error).message;
    throw new Error(`${path} can't be read: ${why}. Remove the cluster's folder to start anew.`);
  }
}

export async function writeRecord(record: ClusterRecord): Promise<void> {
  const folder = folderOf(record.name);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await writeWhole(join(folder, 'cluster.json'), `${JSON.stringify(record, undefined, 2)}\n`);
}

/** A record for a new cluster, with ports and networks that no other cluster keeps and nobody uses. */
export async function newRecord(name: string): Promise<ClusterRecord> {
  const others = await otherRecords(name);
  // Users do not see each other's records: start at different places.
  const start = createHash('sha256').update(`${userInfo().uid}/${name}`).digest().readUInt16BE();
  return {
    name,
    ports: await newPorts(name),
    networks: await freeNetworks(
      start,
      others.map((record) => record.networks),
    ),
  };
}

/** Ports that no other cluster keeps and nobody uses. */
export async function newPorts(name: string): Promise<ClusterRecord['ports']> {
  const taken = (await otherRecords(name)).flatMap((record) => Object.values(record.ports));
  const ports = await freePorts(COMPONENTS.length, new Set(taken));
  return Object.fromEntries(COMPONENTS.map((component, i) => [component, ports[i]])) as ClusterRecord['ports'];
}

async function otherRecords(name: string): Promise<ClusterRecord[]> {
  const names = (await clusterNames()).filter((other) => other !== name);
  // A record that can't be read is that cluster's trouble, and said when that one is used.
  const records = await Promise.all(names.map((other) => readRecord(other).catch(() => undefined)));
  return records.filter((record) => record !== undefined);
}
