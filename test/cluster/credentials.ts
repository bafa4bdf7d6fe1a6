/**
 * The keys of one cluster, made once: two authorities (that of etcd is apart, so that nobody who may sign client
 * certificates can open the database), a certificate for each component, the service accounts' signing key.
 */
import { generateKeyPair } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { stringify } from 'yaml';
import { issue, issueAuthority, type KeyPair, type Subject } from './certificates.ts';
import { makeFolder, writeWhole } from './files.ts';
import type { Access } from './requests.ts';

const LOOPBACK = ['127.0.0.1', 'localhost'];

/** Each certificate under the name of its files. Users and groups are those that Kubernetes' own roles are bound to. */
function subjects(nodeName: string, firstServiceAddress: string): Record<string, Subject> {
  const inCluster = [
    'kubernetes',
    'kubernetes.default',
    'kubernetes.default.svc',
    'kubernetes.default.svc.cluster.local',
  ];
  return {
    apiserver: { user: 'kube-apiserver', hosts: [...LOOPBACK, ...inCluster, firstServiceAddress] },
    'kubelet-client': { user: 'kube-apiserver-kubelet-client', group: 'fovea:kubelet-clients' },
    admin: { user: 'admin', group: 'system:masters' },
    'controller-manager': { user: 'system:kube-controller-manager', hosts: LOOPBACK },
    scheduler: { user: 'system:kube-scheduler', hosts: LOOPBACK },
    node: { user: `system:node:${nodeName}`, group: 'system:nodes', hosts: LOOPBACK },
    provisioner: { user: 'local-provisioner' },
  };
}

/** The components that talk to the API server with a kubeconfig of their own. */
export const KUBECONFIG_OWNERS = ['admin', 'controller-manager', 'scheduler', 'node', 'provisioner'] as const;
export type KubeconfigOwner = (typeof KUBECONFIG_OWNERS)[number];

/** Files below a cluster's folder. */
export const keyFile = (dir: string, name: string) => join(dir, 'pki', name);
export const kubeconfigFile = (dir: string, owner: KubeconfigOwner) =>
  // The administrator's is the one that people look for.
  owner === 'admin' ? join(dir, 'kubeconfig') : join(dir, 'pki', `${owner}.kubeconfig`);

/** Makes `dir`/pki, all of it. */
export async function makeKeys(dir: string, nodeName: string, servicesNetwork: string): Promise<void> {
  const [cluster, etcd, serviceAccounts] = await Promise.all([
    issueAuthority('fovea-cluster'),
    issueAuthority('fovea-etcd'),
    promisify(generateKeyPair)('rsa', {
      // What other clusters sign with, and so what readers of service account tokens must be able to verify.
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    }),
  ]);
  const pairs: Record<string, KeyPair> = {
    ca: cluster,
    'etcd-ca': etcd,
    etcd: await issue(etcd, { user: 'etcd', hosts: LOOPBACK }),
    'etcd-client': await issue(etcd, { user: 'kube-apiserver' }),
  };
  for (const [name, subject] of Object.entries(subjects(nodeName, `${servicesNetwork}.0.1`))) {
    pairs[name] = await issue(cluster, subject);
  }
  const write = async (folder: string) => {
    for (const [name, pair] of Object.entries(pairs)) {
      await writeWhole(join(folder, `${name}.crt`), pair.certificate);
      await writeWhole(join(folder, `${name}.key`), pair.privateKey);
    }
    await writeWhole(join(folder, 'service-accounts.pub'), serviceAccounts.publicKey);
    await writeWhole(join(folder, 'service-accounts.key'), serviceAccounts.privateKey);
  };
  await makeFolder(join(dir, 'pki'), write, 0o700);
}

/** How `owner` reaches `server`, whose certificate `authority` signed, by the keys in `dir`. */
export async function accessOf(dir: string, owner: string, server: string, authority = 'ca'): Promise<Access> {
  const read = (name: string) => readFile(keyFile(dir, name), 'utf8');
  return {
    server,
    ca: await read(`${authority}.crt`),
    certificate: await read(`${owner}.crt`),
    privateKey: await read(`${owner}.key`),
  };
}

/** Access for a user who is no component; signed anew, so the cluster's authority must be at hand in `dir`. */
export async function accessFor(dir: string, subject: Subject, server: string): Promise<Access> {
  const read = (name: string) => readFile(keyFile(dir, name), 'utf8');
  const authority = { certificate: await read('ca.crt'), privateKey: await read('ca.key') };
  return { server, ca: authority.certificate, ...(await issue(authority, subject)) };
}

/** A kubeconfig with its certificates inside it. */
export function kubeconfig(clusterName: string, access: Access): string {
  const base64 = (pem: string | undefined) => pem && Buffer.from(pem).toString('base64');
  return stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      { name: clusterName, cluster: { server: access.server, 'certificate-authority-data': base64(access.ca) } },
    ],
    users: [
      {
        name: clusterName,
        user: {
          'client-certificate-data': base64(access.certificate),
          'client-key-data': base64(access.privateKey),
        },
      },
    ],
    contexts: [{ name: clusterName, context: { cluster: clusterName, user: clusterName } }],
    'current-context': clusterName,
  });
}

/** Writes the kubeconfigs of all components, for the API server at `server`. */
export async function writeKubeconfigs(dir: string, clusterName: string, server: string): Promise<void> {
  for (const owner of KUBECONFIG_OWNERS) {
    await writeWhole(kubeconfigFile(dir, owner), kubeconfig(clusterName, await accessOf(dir, owner, server)));
  }
}
