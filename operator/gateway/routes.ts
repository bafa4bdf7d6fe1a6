/** From what the API server says of a service and its pods to where its requests may go. Pure: watched state in, route out. */
import { PREDICTOR_PORT } from '../../trainer-image/contract.ts';
import { InferenceServiceSpec } from '../api/inferenceservice.ts';
import { REVISION_LABEL } from '../manifests/labels.ts';

const REQUEST_DEFAULTS = InferenceServiceSpec.shape.request.unwrap().parse({});

/** What is read of an InferenceService. */
export interface WatchedService {
  metadata: { name: string; namespace: string };
  spec: { request?: { maxBodyBytes?: number; timeoutSeconds?: number } };
  status?: { revisions?: { name: string; trafficPercent: number }[] };
}

/** What is read of a pod. */
export interface WatchedPod {
  metadata: {
    name: string;
    namespace: string;
    uid: string;
    labels?: Record<string, string>;
    deletionTimestamp?: string | Date;
  };
  status?: { podIP?: string; phase?: string; conditions?: { type: string; status: string }[] };
}

/** A pod that takes requests. */
export interface Endpoint {
  uid: string;
  /** `http://<pod address>:<port>` */
  origin: string;
}

export interface Revision {
  name: string;
  /** Share of the traffic in percent, relative to the other revisions of the route; never 0. */
  weight: number;
  endpoints: Endpoint[];
}

/** Where the requests of one service go. */
export interface Route {
  namespace: string;
  name: string;
  maxBodyBytes: number;
  timeoutMilliseconds: number;
  /** Revisions with at least one endpoint and some traffic. Empty: nothing answers now. */
  revisions: Revision[];
}

/**
 * The route of a service.
 *
 * Weights are those of `status.revisions[].trafficPercent`. A revision without a ready pod is left out, so that the others
 * take over its share in proportion. Should all revisions with traffic be without one, those at 0 percent (a version kept to
 * go back to, or one warming up) get nothing: a revision that is to have no traffic may never have been verified in serving.
 *
 * Services and pods are watched apart. When a revision has handed over to another, its pods may be seen to go before the status
 * that names the other is seen. So where nothing else is left, pods on their way out are asked: they answer while they drain.
 */
export function route(service: WatchedService, pods: Iterable<WatchedPod>): Route {
  const endpoints = new Map<string, Endpoint[]>();
  const leaving = new Map<string, Endpoint[]>();
  for (const pod of pods) {
    const revision = pod.metadata.labels?.[REVISION_LABEL];
    if (revision === undefined || pod.status?.podIP === undefined) continue;
    const among = takesRequests(pod) ? endpoints : drains(pod) ? leaving : undefined;
    if (!among) continue;
    const address = pod.status!.podIP!;
    const host = address.includes(':') ? `[${address}]` : address;
    const endpoint = { uid: pod.metadata.uid, origin: `http://${host}:${PREDICTOR_PORT}` };
    const known = among.get(revision);
    if (known) known.push(endpoint);
    else among.set(revision, [endpoint]);
  }
  const revisionsWith = (ready: Map<string, Endpoint[]>) =>
    (service.status?.revisions ?? []).flatMap(({ name, trafficPercent }) => {
      const found = ready.get(name);
      return found && trafficPercent > 0 ? [{ name, weight: trafficPercent, endpoints: found }] : [];
    });
  const revisions = revisionsWith(endpoints);
  const request = service.spec.request ?? {};
  return {
    namespace: service.metadata.namespace,
    name: service.metadata.name,
    maxBodyBytes: request.maxBodyBytes ?? REQUEST_DEFAULTS.maxBodyBytes,
    timeoutMilliseconds: (request.timeoutSeconds ?? REQUEST_DEFAULTS.timeoutSeconds) * 1000,
    revisions: revisions.length > 0 ? revisions : revisionsWith(leaving),
  };
}

/** On its way out, and not ended: a predictor takes requests for a moment after it was told to stop. */
const drains = ({ metadata, status }: WatchedPod) =>
  metadata.deletionTimestamp !== undefined && status?.phase === 'Running';

/** Ready, and not on its way out. */
function takesRequests(pod: WatchedPod): boolean {
  return (
    pod.metadata.deletionTimestamp === undefined &&
    (pod.status?.conditions ?? []).some(({ type, status }) => type === 'Ready' && status === 'True')
  );
}

/** A request's target, told by its path. */
export interface Target {
  namespace: string;
  name: string;
  /** Path and query at the predictor. */
  path: string;
  /** Whether only POST makes sense. */
  classify: boolean;
}

/** The base path of a service at the gateway; `status.url` ends with it. */
const SERVICE_PATH =
  /^\/v1\/namespaces\/([a-z0-9][a-z0-9-]{0,62})\/inferenceservices\/([a-z0-9][a-z0-9.-]{0,252})(:classify|\/v2(?:\/[\w.:~-]+)*\/?)(\?.*)?$/;

/**
 * Reads a request's path; undefined where it is none of ours.
 *
 * `/v1/namespaces/{ns}/inferenceservices/{name}:classify` and, for the Open Inference Protocol,
 * `/v1/namespaces/{ns}/inferenceservices/{name}/v2/...`. The protocol's own paths begin with `/v2` and name no namespace, so a
 * bare `/v2/...` at a gateway of many namespaces would be ambiguous; as a suffix, a protocol client (tritonclient, KServe's)
 * takes the service's URL as its base and works unchanged. Nothing else of a predictor can be reached: no metrics, no health of
 * its own, and no `..` or escape that would lead there.
 */
export function target(url: string): Target | undefined {
  const match = SERVICE_PATH.exec(url);
  if (!match) return undefined;
  const [, namespace, name, rest, query = ''] = match as unknown as [string, string, string, string, string?];
  if (rest === ':classify') return { namespace, name, path: `/v1/models/${name}:classify${query}`, classify: true };
  if (rest.split('/').some((segment) => segment === '.' || segment === '..')) return undefined;
  return { namespace, name, path: `${rest}${query}`, classify: false };
}
