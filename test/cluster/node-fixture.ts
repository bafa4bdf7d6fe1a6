/**
 * A cluster with one process node for the length of a test file. Where the tests run as root, the node runs as an
 * unprivileged user all the same, from a folder of its own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync } from 'node:fs';
import { chmod, chown, copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { env, getuid } from 'node:process';
import { stringify } from 'yaml';
import { eventually } from '../eventually.ts';
import { kubectlBinaries, processNodeBinary } from './build.ts';
import { type ControlPlane, startControlPlane } from './controlplane.ts';
import { keyFile } from './credentials.ts';
import { freePorts } from './ports.ts';
import { request } from './requests.ts';

/** The user nobody, on every Linux. */
const UNPRIVILEGED = 65534;
/** Seconds after which a condition that was waited for is given up; generous, as the machine may be busy. */
/** Seconds after which containers end whose node is gone. */
const ORPHAN_SECONDS = 4;

/** What the images of the tests are. A python that every user may run, and not one from somebody's home. */
const PYTHON = ['/usr/bin/python3', '/usr/local/bin/python3'].find(existsSync) ?? 'python3';
export const IMAGES = {
  shell: { command: ['/bin/sh', '-c'] },
  python: { command: [PYTHON, '-u', '-c'] },
};

/** Where the API server has the kinds that tests wait for. Asked directly: a kubectl for each look is most of a test's time. */
const PATHS = {
  node: '/api/v1/nodes',
  pod: '/api/v1/namespaces/default/pods',
  pvc: '/api/v1/namespaces/default/persistentvolumeclaims',
  serviceaccount: '/api/v1/namespaces/default/serviceaccounts',
  job: '/apis/batch/v1/namespaces/default/jobs',
};
export type Kind = keyof typeof PATHS;

/** A Kubernetes object, as kubectl shows it. */
// biome-ignore lint/suspicious/noExplicitAny: tests reach deep into objects of every kind
export type KubeObject = any;

export interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

export interface NodeCluster extends AsyncDisposable {
  /** Folder of the node: `state/`, `volumes/`, `images.yaml`. */
  dir: string;
  plane: ControlPlane;
  node: ChildProcess;
  /** Runs kubectl; `input` is its stdin. Never throws for an exit code. */
  kubectl(args: readonly string[], input?: string): Promise<Ran>;
  /** kubectl as a process that goes on, such as `logs -f`; on request with a terminal of its own, as in somebody's shell. */
  follow(args: readonly string[], options?: { terminal?: boolean }): ChildProcess;
  apply(...objects: KubeObject[]): Promise<void>;
  get(kind: Kind, name: string): Promise<KubeObject>;
  /** The objects that kubectl's options select. */
  list(...args: string[]): Promise<KubeObject[]>;
  /** The object once `is` holds for it. Throws with the object as it was last. */
  until(kind: Kind, name: string, is: (object: KubeObject) => unknown): Promise<KubeObject>;
  /** A pod once all of it has ended. */
  finished(name: string): Promise<KubeObject>;
  logs(pod: string, ...args: string[]): Promise<string>;
  remove(kind: string, name: string, ...args: string[]): Promise<void>;
  /** Ends the node, but not its containers, which a later `start` takes over. */
  stop(signal?: NodeJS.Signals): Promise<void>;
  start(): Promise<void>;
  /** What `cluster down` does: every container ends. */
  down(): Promise<void>;
  setImages(images: Record<string, object>): Promise<void>;
}

/** Brings up control plane and node. */
export async function startNodeCluster(mountMode: 'userns' | 'rewrite'): Promise<NodeCluster> {
  const [plane, tools, dir] = await Promise.all([
    startControlPlane({ controllers: true, scheduler: true }),
    kubectlBinaries(),
    mkdtemp(join('/var/tmp', 'fovea-node-')),
  ]);
  const owner = getuid?.() === 0 ? UNPRIVILEGED : undefined;
  const [port] = await freePorts(1);
  const binary = await layOut(dir, plane, mountMode, port!);
  if (owner !== undefined) await giveTo(dir, owner);

  const environment = { ...env, KUBECONFIG: plane.kubeconfig, PATH: `${tools}:${env.PATH}` };
  const kubectl: NodeCluster['kubectl'] = async (args, input = '') => {
    const child = spawn('kubectl', args, { env: environment, stdio: 'pipe' });
    child.stdin.end(input);
    const ran: Ran = { code: -1, stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (chunk) => (ran.stdout += chunk));
    child.stderr.setEncoding('utf8').on('data', (chunk) => (ran.stderr += chunk));
    [ran.code] = await once(child, 'close');
    return ran;
  };
  const must = async (args: readonly string[], input?: string) => {
    const ran = await kubectl(args, input);
    if (ran.code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${ran.stderr}`);
    return ran.stdout;
  };
  const look = async (kind: Kind, name: string): Promise<KubeObject | undefined> => {
    const { status, body } = await request(plane.admin, `${PATHS[kind]}/${name}`);
    if (status !== 200 && status !== 404) throw new Error(`${kind} ${name}: ${status} ${body}`);
    return status === 200 ? JSON.parse(body) : undefined;
  };
  const log = openSync(join(dir, 'node.log'), 'a');
  const argv = ['--config', join(dir, 'node.yaml')];
  const user = owner === undefined ? {} : { uid: owner, gid: owner };
  const run = (...more: string[]) =>
    spawn(binary, [...argv, ...more], {
      ...user,
      cwd: '/',
      env: { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: dir },
      stdio: ['ignore', log, log],
    });
  const ended = (child: ChildProcess) =>
    child.exitCode !== null || child.signalCode !== null ? Promise.resolve() : once(child, 'exit');

  const cluster: NodeCluster = {
    dir,
    plane,
    node: run(),
    kubectl,
    follow(args, { terminal = false } = {}) {
      const inTerminal = ['python3', '-c', 'import pty, sys; pty.spawn(sys.argv[1:])'];
      const [program, ...rest] = [...(terminal ? inTerminal : []), 'kubectl', ...args];
      return spawn(program!, rest, { env: environment, stdio: 'pipe' });
    },
    async apply(...objects) {
      await must(['apply', '--filename', '-'], objects.map((object) => stringify(object)).join('---\n'));
    },
    async get(kind, name) {
      const found = await look(kind, name);
      if (!found) throw new Error(`there is no ${kind} ${name}`);
      return found;
    },
    list: async (...args) => JSON.parse(await must(['get', ...args, '--output', 'json'])).items,
    async until(kind, name, is) {
      let last: KubeObject;
      return eventually(
        async () => {
          last = await look(kind, name);
          return last !== undefined && is(last) ? last : undefined;
        },
        () => `${kind}/${name}: ${is}; it is ${JSON.stringify(last?.status ?? last, undefined, 1)}`,
      );
    },
    finished: (name) => cluster.until('pod', name, ({ status }) => /Succeeded|Failed/.test(status.phase)),
    logs: (pod, ...args) => must(['logs', pod, ...args]),
    async remove(kind, name, ...args) {
      await must(['delete', kind, name, ...args]);
    },
    async stop(signal = 'SIGTERM') {
      cluster.node.kill(signal);
      await ended(cluster.node);
    },
    async start() {
      cluster.node = run();
    },
    async down() {
      const child = run('--down');
      await ended(child);
      if (child.exitCode !== 0) throw new Error(`--down: ${await readFile(join(dir, 'node.log'), 'utf8')}`);
    },
    setImages: (images) => writeFile(join(dir, 'images.yaml'), stringify({ images })),
    async [Symbol.asyncDispose]() {
      await cluster.stop('SIGKILL');
      await cluster.down();
      closeSync(log);
      await plane.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
  try {
    await must(['apply', '--server-side', '--filename', join(import.meta.dirname, 'node', 'manifests')]);
    await cluster.until('node', 'local', isReady);
    await cluster.until('serviceaccount', 'default', () => true);
    return cluster;
  } catch (error) {
    (error as Error).message += `\n${await readFile(join(dir, 'node.log'), 'utf8')}`;
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
}

/** Writes what the node needs into its folder; returns its program. */
async function layOut(dir: string, plane: ControlPlane, mountMode: string, port: number): Promise<string> {
  const built = await processNodeBinary();
  const bin = join(dir, 'bin');
  await mkdir(bin);
  for (const program of await readdir(dirname(built)))
    await copyFile(join(dirname(built), program), join(bin, program));
  const keys = ['node.crt', 'node.key', 'ca.crt', 'node.kubeconfig', 'provisioner.kubeconfig'];
  for (const key of keys) await copyFile(keyFile(plane.dir, key), join(dir, key));
  await writeFile(join(dir, 'images.yaml'), stringify({ images: IMAGES }));
  const configuration = {
    name: 'local',
    kubeconfig: join(dir, 'node.kubeconfig'),
    provisionerKubeconfig: join(dir, 'provisioner.kubeconfig'),
    listen: `127.0.0.1:${port}`,
    tls: { certFile: join(dir, 'node.crt'), keyFile: join(dir, 'node.key'), clientCAFile: join(dir, 'ca.crt') },
    stateDir: join(dir, 'state'),
    volumesDir: join(dir, 'volumes'),
    imagesFile: join(dir, 'images.yaml'),
    mountMode,
    podNetwork: '127.99',
    orphanSeconds: ORPHAN_SECONDS,
    capacity: { cpu: '64', 'example.com/widgets': '2' },
    crashBackoffSeconds: 1,
    volumeRefreshSeconds: 1,
  };
  await writeFile(join(dir, 'node.yaml'), stringify(configuration));
  return join(bin, basename(built));
}

async function giveTo(dir: string, owner: number): Promise<void> {
  await chmod(dir, 0o755);
  for (const entry of ['', ...(await readdir(dir, { recursive: true }))]) await chown(join(dir, entry), owner, owner);
}

export const isReady = ({ status }: KubeObject) =>
  status?.conditions?.some((c: KubeObject) => c.type === 'Ready' && c.status === 'True');

/** A pod of one container, or of as many as `spec.containers` says. Its grace period is short, as most programs ignore SIGTERM. */
export function podOf(
  name: string,
  container: KubeObject,
  spec: KubeObject = {},
  metadata: KubeObject = {},
): KubeObject {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, ...metadata },
    spec: {
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 2,
      ...(container && { containers: [{ name: 'main', image: 'shell', ...container }] }),
      ...spec,
    },
  };
}

/** A program that answers `text` over HTTP on its pod's own address. */
export const serving = (text: string, port = 8080) => ({
  image: 'python',
  args: [
    `
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    self.send_response(200); self.end_headers(); self.wfile.write(b'${text}')
  def log_message(self, *a): pass
http.server.HTTPServer((os.environ['POD_IP'], ${port}), Handler).serve_forever()
`,
  ],
  env: [{ name: 'POD_IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } }],
  ports: [{ name: 'http', containerPort: port }],
  readinessProbe: { httpGet: { port: 'http' }, periodSeconds: 1 },
});

/** Processes of this machine whose command line contains `marker`, by pid. */
export async function processesWith(marker: string): Promise<number[]> {
  const found: number[] = [];
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const line = await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '');
    if (line.includes(marker)) found.push(Number(entry));
  }
  return found;
}
