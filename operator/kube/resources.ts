/** REST resources as data, and the objects they hold. Knows no custom resource. */

export interface Resource {
  /** '' is the core group. */
  group: string;
  version: string;
  plural: string;
  kind: string;
  namespaced: boolean;
}

/** What every object has; the rest is the caller's type. */
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
export const DEPLOYMENTS = resource('apps', 'v1', 'deployments', 'Deployment');

/** `/api/v1/namespaces/ns/pods/name/status`, each part encoded. */
export function resourcePath(of: Resource, namespace?: string, name?: string, subresource?: string): string {
  const parts = of.group === '' ? ['api', of.version] : ['apis', of.group, of.version];
  if (of.namespaced && namespace !== undefined) parts.push('namespaces', namespace);
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
