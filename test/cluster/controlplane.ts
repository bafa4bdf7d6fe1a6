/**
 * A control plane for the length of a test: etcd and the API server, in a temporary folder, gone with the process that
 * started them.
 *
 *     await using plane = await startControlPlane();
 *     // KUBECONFIG=plane.kubeconfig
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { kubeBinary } from './build.ts';
import type { Subject } from './certificates.ts';
import { argumentsOf, CONTROL_PLANE, type ControlPlaneComponent, type ControlPlaneLayout } from './components.ts';
import { accessFor, accessOf, kubeconfig, kubeconfigFile, makeKeys, writeKubeconfigs } from './credentials.ts';
import { writeWhole } from './files.ts';
import { healthCheck } from './health.ts';
import { freePorts } from './ports.ts';
import { ComponentFailed, ready, start } from './processes.ts';
import type { Access } from './requests.ts';

export interface ControlPlaneOptions {
  /** Also run the controllers (garbage collection, Jobs, Deployments, namespaces' deletion ...). Default: false. */
  controllers?: boolean;
  /** Also run the scheduler. Default: false; there are no nodes unless the test makes some. */
  scheduler?: boolean;
  /** An audit.k8s.io/v1 Policy (YAML or JSON): the API server logs what it says. */
  auditPolicy?: string;
}

export interface ControlPlane extends AsyncDisposable {
  /** Holds keys, logs and the database; removed by `stop`. */
  dir: string;
  /** File; its user may do everything. */
  kubeconfig: string;
  /** URL of the API server. */
  server: string;
  /** URL of etcd. */
  etcd: string;
  /** Access with the rights of the kubeconfig's user. */
  admin: Access;
  /** Access and kubeconfig file for a user of that name and group, who has the rights that RBAC gives them. */
  userOf(subject: Subject): Promise<{ access: Access; kubeconfig: string }>;
  /** The audit log, an audit.k8s.io/v1 Event a line. Written only with `auditPolicy`. */
  auditLog: string;
  /** Kills a component that runs and starts it again as it was; resolves when it is ready. */
  restart(component: ControlPlaneComponent): Promise<void>;
  /** Ends the processes and removes the folder. */
  stop(): Promise<void>;
}

/** Seconds within which a component must be ready. Generous: the machine may be busy with other tests. */
const READY_SECONDS = 60;

/** Another test may have taken a port between our looking for it and the component's listening on it. */
const ATTEMPTS = 3;

/**
 * Starts a control plane of its own for the caller. The first call on a machine builds it, which takes minutes.
 *
 * @throws ComponentFailed with the end of the component's log
 */
export async function startControlPlane(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const kube = await kubeBinary();
  for (let attempt = 1; ; attempt++) {
    const dir = await mkdtemp(join(tmpdir(), 'fovea-controlplane-'));
    try {
      return await startIn(dir, kube, options);
    } catch (error) {
      const again = error instanceof ComponentFailed && error.message.includes('address already in use');
      // The folder stays: the error names a log in it.
      if (!again || attempt === ATTEMPTS) throw error;
      await rm(dir, { recursive: true, force: true });
    }
  }
}

async function startIn(dir: string, kube: string, options: ControlPlaneOptions): Promise<ControlPlane> {
  const ports = await freePorts(CONTROL_PLANE.length);
  const auditLog = join(dir, 'logs', 'audit.log');
  const layout: ControlPlaneLayout = {
    dir,
    ports: Object.fromEntries(CONTROL_PLANE.map((c, i) => [c, ports[i]])) as ControlPlaneLayout['ports'],
    servicesNetwork: '127.80',
    ...(options.auditPolicy !== undefined && {
      audit: { policyFile: join(dir, 'audit-policy.yaml'), logFile: auditLog },
    }),
  };
  const server = `https://127.0.0.1:${layout.ports['kube-apiserver']}`;
  await makeKeys(dir, 'local', layout.servicesNetwork);
  await writeKubeconfigs(dir, 'controlplane', server);
  await mkdir(join(dir, 'logs'));
  if (layout.audit) await writeWhole(layout.audit.policyFile, options.auditPolicy ?? '');

  const children = new Map<ControlPlaneComponent, ChildProcess>();
  const run = async (component: ControlPlaneComponent) => {
    const log = join(dir, 'logs', `${component}.log`);
    const argv = [kube, ...argumentsOf(component, layout)];
    const child = await start({ argv, log, diesWith: 'Us' });
    children.set(component, child);
    const check = await healthCheck(dir, component, layout.ports[component]);
    await ready({ name: component, log }, child, check, READY_SECONDS);
  };
  const kill = async (child: ChildProcess) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.ref();
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  const stop = async () => {
    await Promise.all([...children.values()].map(kill));
    await rm(dir, { recursive: true, force: true });
  };

  try {
    await run('etcd');
    await run('kube-apiserver');
    await Promise.all([
      options.controllers && run('kube-controller-manager'),
      options.scheduler && run('kube-scheduler'),
    ]);
  } catch (error) {
    await Promise.all([...children.values()].map(kill));
    throw error;
  }

  return {
    dir,
    kubeconfig: kubeconfigFile(dir, 'admin'),
    server,
    etcd: `https://127.0.0.1:${layout.ports.etcd}`,
    admin: await accessOf(dir, 'admin', server),
    async userOf(subject) {
      const access = await accessFor(dir, subject, server);
      const path = join(dir, `${subject.user.replace(/[^\w.-]/g, '_')}.kubeconfig`);
      await writeWhole(path, kubeconfig('controlplane', access));
      return { access, kubeconfig: path };
    },
    auditLog,
    async restart(component) {
      const child = children.get(component);
      if (!child) throw new Error(`${component} does not run here`);
      await kill(child);
      await run(component);
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
