/** Whether components answer. */
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

/** A check of the node: it serves logs and exec at `port`, and the API server holds it for ready. */
export async function nodeCheck(dir: string, nodeName: string, server: string, port: number) {
  const admin = await accessOf(dir, 'admin', server);
  const kubelet = await accessOf(dir, 'kubelet-client', `https://127.0.0.1:${port}`);
  return async (): Promise<string | undefined> => {
    try {
      // Any answer will do. An earlier run's Ready is believed by the API server for a while, so that is not enough.
      await request(kubelet, '/healthz');
      const { status, body } = await request(admin, `/api/v1/nodes/${nodeName}`);
      if (status !== 200) return `the API server answered ${status} for its Node ${nodeName}`;
      const conditions: { type: string; status: string; message?: string }[] =
        JSON.parse(body).status?.conditions ?? [];
      const ready = conditions.find(({ type }) => type === 'Ready');
      if (ready?.status === 'True') return undefined;
      return `its Node ${nodeName} is not Ready: ${ready?.message ?? 'no condition yet'}`;
    } catch (error) {
      return `${kubelet.server}: ${(error as Error).message}`;
    }
  };
}
