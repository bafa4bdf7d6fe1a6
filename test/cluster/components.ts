/** The command line of each control plane component. Pure: a cluster's folder and ports in, arguments out. */
import { join } from 'node:path';
import { keyFile, kubeconfigFile } from './credentials.ts';

export const CONTROL_PLANE = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler'] as const;
export type ControlPlaneComponent = (typeof CONTROL_PLANE)[number];

/** What the command lines depend on. */
export interface ControlPlaneLayout {
  dir: string;
  ports: Record<ControlPlaneComponent, number>;
  /** First two bytes of the Services' addresses. */
  servicesNetwork: string;
  /** Policy and log of the API server's audit. Absent: none is kept. */
  audit?: { policyFile: string; logFile: string };
}

/** Endpoints and EndpointSlices refuse addresses in 127/8, which are what pods have here; these would log errors for ever. */
const CONTROLLERS = ['*', '-endpoints-controller', '-endpointslice-controller', '-endpointslice-mirroring-controller'];

/** Requests a second to the API server; the default of 20 makes a Job of 100 completions take twice as long. */
const CLIENT_RATE = { 'kube-api-qps': '300', 'kube-api-burst': '600' };

/**
 * Arguments of `kube`, the component's name first. No secret is among them: other users can read them.
 */
export function argumentsOf(component: ControlPlaneComponent, layout: ControlPlaneLayout): string[] {
  const flags = {
    etcd,
    'kube-apiserver': apiserver,
    'kube-controller-manager': controllerManager,
    'kube-scheduler': scheduler,
  };
  return [component, ...Object.entries(flags[component](layout)).map(([name, value]) => `--${name}=${value}`)];
}

function etcd({ dir, ports }: ControlPlaneLayout) {
  return {
    'data-dir': join(dir, 'etcd'),
    'listen-client': `https://127.0.0.1:${ports.etcd}`,
    'cert-file': keyFile(dir, 'etcd.crt'),
    'key-file': keyFile(dir, 'etcd.key'),
    'client-ca-file': keyFile(dir, 'etcd-ca.crt'),
    // What has been written survives every death of etcd, only not that of the machine: a fair price in a disposable
    // cluster for writes that do not wait for a slow disk.
    'no-fsync': 'true',
  };
}

function apiserver({ dir, ports, servicesNetwork, audit }: ControlPlaneLayout) {
  return {
    ...(audit && { 'audit-policy-file': audit.policyFile, 'audit-log-path': audit.logFile }),
    'etcd-servers': `https://127.0.0.1:${ports.etcd}`,
    'etcd-cafile': keyFile(dir, 'etcd-ca.crt'),
    'etcd-certfile': keyFile(dir, 'etcd-client.crt'),
    'etcd-keyfile': keyFile(dir, 'etcd-client.key'),
    'bind-address': '127.0.0.1',
    'advertise-address': '127.0.0.1',
    'secure-port': `${ports['kube-apiserver']}`,
    'tls-cert-file': keyFile(dir, 'apiserver.crt'),
    'tls-private-key-file': keyFile(dir, 'apiserver.key'),
    'client-ca-file': keyFile(dir, 'ca.crt'),
    'anonymous-auth': 'false',
    'authorization-mode': 'Node,RBAC',
    // Pod Security admission is among those that are on by default.
    'enable-admission-plugins': 'NodeRestriction',
    // Whether a pod may be privileged is for Pod Security to say, namespace by namespace.
    'allow-privileged': 'true',
    'service-account-issuer': 'https://kubernetes.default.svc.cluster.local',
    'service-account-key-file': keyFile(dir, 'service-accounts.pub'),
    'service-account-signing-key-file': keyFile(dir, 'service-accounts.key'),
    'service-cluster-ip-range': `${servicesNetwork}.0.0/16`,
    // Endpoints of the `kubernetes` Service would be refused for their address.
    'endpoint-reconciler-type': 'none',
    'kubelet-client-certificate': keyFile(dir, 'kubelet-client.crt'),
    'kubelet-client-key': keyFile(dir, 'kubelet-client.key'),
    'kubelet-certificate-authority': keyFile(dir, 'ca.crt'),
    'kubelet-preferred-address-types': 'InternalIP',
    profiling: 'false',
  };
}

function controllerManager({ dir, ports }: ControlPlaneLayout) {
  return {
    kubeconfig: kubeconfigFile(dir, 'controller-manager'),
    ...secureServing(dir, 'controller-manager', ports['kube-controller-manager']),
    'use-service-account-credentials': 'true',
    'service-account-private-key-file': keyFile(dir, 'service-accounts.key'),
    'root-ca-file': keyFile(dir, 'ca.crt'),
    'cluster-signing-cert-file': keyFile(dir, 'ca.crt'),
    'cluster-signing-key-file': keyFile(dir, 'ca.key'),
    controllers: CONTROLLERS.join(','),
    // A claim made before its class waits this long; the default is 15 s.
    'pvclaimbinder-sync-period': '2s',
    ...CLIENT_RATE,
  };
}

function scheduler({ dir, ports }: ControlPlaneLayout) {
  return {
    kubeconfig: kubeconfigFile(dir, 'scheduler'),
    ...secureServing(dir, 'scheduler', ports['kube-scheduler']),
    ...CLIENT_RATE,
  };
}

/** Health is all that is asked of these two, and needs no right; nobody else is let in. */
function secureServing(dir: string, owner: string, port: number) {
  return {
    'leader-elect': 'false',
    'bind-address': '127.0.0.1',
    'secure-port': `${port}`,
    'tls-cert-file': keyFile(dir, `${owner}.crt`),
    'tls-private-key-file': keyFile(dir, `${owner}.key`),
    profiling: 'false',
  };
}
