/** REST resources as data, and the objects they hold. Knows no custom resource. */

export interface Resource {
  /** '' is the core group. */
  group: string;
  version: string;
  plural: string;
  kind: string;
  namespaced: boolean;
}

/**
 * What every object has; the rest is the caller's type. In what comes from the server times are strings, although
 * @kubernetes/client-node types them as Date.
 */
export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata?: {
    name?: string;
    namespace?: string;
    uid?: string;
    resourceVersion?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    ownerReferences?: { apiVersion: string; kind: string; name: string; uid: string; controller?: boolean }[];
    deletionTimestamp?: string | Date;
    managedFields?: unknown;
  };
}

const resource = (group: string, version: string, plural: string, kind: string): Resource => ({
  group,
  version,
  plural,
  kind,
  namespaced: true,
});

export const PODS = resource('', 'v1', 'pods', 'Pod');
export const SECRETS = resource('', 'v1', 'secrets', 'Secret');
export const CLAIMS = resource('', 'v1', 'persistentvolumeclaims', 'PersistentVolumeClaim');
export const EVENTS = resource('', 'v1', 'events', 'Event');
export const CONFIG_MAPS = resource('', 'v1', 'configmaps', 'ConfigMap');
export const JOBS = resource('batch', 'v1', 'jobs', 'Job');
export const LEASES = resource('coordination.k8s.io', 'v1', 'leases', 'Lease');
export const DEPLOYMENTS = resource('apps', 'v1', 'deployments', 'Deployment');

export function apiVersionOf(of: Resource): string {
  return of.group === '' ? of.version : `${of.group}/${of.version}`;
}

/** `/api/v1/namespaces/ns/pods/name/status`, each part encoded. Without a namespace: the resource in all of them. */
export function resourcePath(of: Resource, namespace?: string, name?: string, subresource?: string): string {
  if (name === '') throw new Error(`a ${of.kind} without a name`);
  if (of.namespaced && !namespace && name !== undefined) {
    throw new Error(`${of.kind} ${name}: a namespace is needed to name it`);
  }
  const parts = of.group === '' ? ['api', of.version] : ['apis', of.group, of.version];
  if (of.namespaced && namespace) parts.push('namespaces', namespace);
  parts.push(of.plural);
  if (name !== undefined) parts.push(name);
  if (subresource !== undefined) parts.push(subresource);
  return `/${parts.map(encodeURIComponent).join('/')}`;
}

/** `namespace/name`, or the name alone of an object without a namespace. */
export function keyOf(object: KubeObject): string {
  const { namespace, name = '' } = object.metadata ?? {};
  return namespace ? `${namespace}/${name}` : name;
}

export function splitKey(key: string): { namespace: string; name: string } {
  const slash = key.indexOf('/');
  return { namespace: key.slice(0, Math.max(0, slash)), name: key.slice(slash + 1) };
}

/**
 * Orders two resourceVersions: below 0 if `a` is the older. Kubernetes promises since 1.35 that they are decimal numbers that
 * rise (KEP-5504), and every server on etcd has always kept to it.
 *
 * @throws Error if one is no number
 */
export function compareVersions(a: string | undefined, b: string | undefined): number {
  for (const version of [a, b]) {
    if (!version || !/^\d+$/.test(version)) throw new Error(`resourceVersion ${JSON.stringify(version)} is no number`);
  }
  return a!.length - b!.length || (a! < b! ? -1 : a! > b! ? 1 : 0);
}
