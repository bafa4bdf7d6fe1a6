/** Whether control plane components answer. */
import type { ControlPlaneComponent } from './components.ts';
import { accessOf } from './credentials.ts';
import { request } from './requests.ts';

const HEALTH: Record<ControlPlaneComponent, { owner: string; authority: string; path: string }> = {
  etcd: { owner: 'etcd-client', authority: 'etcd-ca', path: '/health' },
  // Ready only when the roles of RBAC are there: before, requests are answered 403.
  'kube-apiserver': { owner: 'admin', authority: 'ca', path: '/readyz' },
  'kube-controller-manager': { owner: 'admin', authority: 'ca', path: '/healthz' },
  'kube-scheduler': { owner: 'admin', authority: 'ca', path: '/readyz' },
};

/** A check of one component: gives undefined when it is healthy, else what it answered. */
export async function healthCheck(
  dir: string,
  component: ControlPlaneComponent,
  port: number,
): Promise<() => Promise<string | undefined>> {
  const { owner, authority, path } = HEALTH[component];
  const access = await accessOf(dir, owner, `https://127.0.0.1:${port}`, authority);
  return async () => {
    try {
      const { status, body } = await request(access, path);
      return status === 200 ? undefined : `${path} answered ${status}: ${failedChecks(body)}`;
    } catch (error) {
      return `${access.server}${path}: ${(error as Error).message}`;
    }
  };
}

/** Of a verbose health answer, the checks marked [-]; else its first line. */
function failedChecks(body: string): string {
  const lines = body.split('\n');
  const failed = lines.filter((line) => line.startsWith('[-]'));
  return (failed.length > 0 ? failed : lines.slice(0, 1)).join('; ').slice(0, 300);
}
