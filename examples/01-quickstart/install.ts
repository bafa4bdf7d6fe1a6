/** Installs Fovea in a cluster: the kinds, and the operator and the gateway as pods, by kubectl as a user would. */
import { join } from 'node:path';
import type { Cluster } from '../../test/cluster/cluster.ts';
import { command } from '../../test/cluster/command.ts';
import { digestOf } from '../../test/cluster/files.ts';

const ROOT = join(import.meta.dirname, '../..');
const SYSTEM = join(import.meta.dirname, 'system');
const DEPLOYMENTS = ['fovea-operator', 'fovea-gateway'];

/** Runs kubectl; rejects with its last lines if it fails. */
export type Kubectl = (...args: string[]) => Promise<string>;

export function kubectlOf({ kubeconfig, tools }: Pick<Cluster, 'kubeconfig' | 'tools'>): Kubectl {
  return (...args) => command(join(tools, 'kubectl'), ['--kubeconfig', kubeconfig, ...args]);
}

/**
 * Returns when the operator and the gateway are ready. Their pods run the checkout, and start anew when it has changed.
 *
 * @param onStep what is being done, in words
 */
export async function installFovea(kubectl: Kubectl, onStep: (step: string) => void = () => {}): Promise<void> {
  onStep('Applying the kinds, the operator and the gateway');
  await kubectl('apply', '-f', join(ROOT, 'crds'));
  await kubectl('wait', '--for=condition=Established', '--timeout=60s', '-f', join(ROOT, 'crds'));
  await kubectl('apply', '-f', join(SYSTEM, 'namespace.yaml'));
  await kubectl('apply', '-f', SYSTEM);
  const isProgram = (path: string) => path.endsWith('.ts') && !path.endsWith('.test.ts');
  const sources = await digestOf(join(ROOT, 'operator'), isProgram);
  const template = { metadata: { annotations: { 'fovea.dev/sources': sources } } };
  const patch = JSON.stringify({ spec: { template } });
  for (const deployment of DEPLOYMENTS) {
    await kubectl('-n', 'fovea-system', 'patch', 'deployment', deployment, '-p', patch);
  }
  for (const deployment of DEPLOYMENTS) {
    onStep(`Waiting until ${deployment} is ready`);
    await kubectl('-n', 'fovea-system', 'rollout', 'status', `deployment/${deployment}`, '--timeout=180s');
  }
}
