/**
 * Requests to the API server over the credentials of @kubernetes/client-node. Objects are plain JSON: unknown fields are kept.
 */
import { KubeConfig } from '@kubernetes/client-node';
import { Agent, type Dispatcher, request } from 'undici';
import { backoff } from './backoff.ts';
import { ApiError, isTransient, type Status } from './errors.ts';
import { type KubeObject, type Resource, resourcePath } from './resources.ts';

export interface List<T> {
  metadata: { resourceVersion: string; continue?: string };
  items: T[];
}

export interface WatchEvent<T> {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  object: T;
}

export interface Selection {
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
}

/** Called for each answer, and with code 0 for a connection that failed. */
export type RequestObserver = (verb: string, resource: string, code: number, seconds: number) => void;

export interface Client {
  readonly server: string;
  get<T extends KubeObject>(of: Resource, namespace: string | undefined, name: string): Promise<T>;
  /** One page; see `Reflector` for whole lists. */
  list<T extends KubeObject>(
    of: Resource,
    select: Selection,
    page?: { limit?: number; continue?: string },
  ): Promise<List<T>>;
  create<T extends KubeObject>(of: Resource, object: T): Promise<T>;
  /** Server-side apply; takes over fields that other managers hold. */
  apply<T extends KubeObject>(of: Resource, object: T, fieldManager: string): Promise<T>;
  /** JSON merge patch (RFC 7386). */
  patch<T extends KubeObject>(of: Resource, namespace: string | undefined, name: string, patch: object): Promise<T>;
  replace<T extends KubeObject>(of: Resource, object: T): Promise<T>;
  /** Replaces the status; fails with Conflict if `metadata.resourceVersion` is not the present one. */
  replaceStatus<T extends KubeObject>(of: Resource, object: T): Promise<T>;
  /** Deletes, in the background with what it owns; `uid` guards against a later object of the same name. */
  delete(of: Resource, namespace: string | undefined, name: string, uid?: string): Promise<void>;
  /** Events from `resourceVersion` on, until the server ends the stream, it breaks or `signal` aborts. */
  watch<T extends KubeObject>(
    of: Resource,
    select: Selection,
    resourceVersion: string,
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent<T>>;
  /** GET of any path, as JSON. */
  raw(path: string): Promise<unknown>;
  close(): Promise<void>;
}

/** Time for a whole request that is no watch, in ms. */
const TIMEOUT = 30_000;
/** Seconds after which the server ends a watch by itself; it starts again from where it was. */
const WATCH_SECONDS = 300;
/** The server sends a bookmark about once a minute: a watch silent for longer is dead without knowing it. */
const WATCH_SILENCE = 90_000;
/** Tries of a request that may be repeated safely. */
const TRIES = 4;

/** kubeconfig by `file`, else $KUBECONFIG, in the cluster, or ~/.kube/config. */
export function loadConfig(file?: string): KubeConfig {
  const config = new KubeConfig();
  if (file) config.loadFromFile(file);
  else config.loadFromDefault();
  return config;
}

export async function connect(config: KubeConfig = loadConfig(), observe: RequestObserver = () => {}): Promise<Client> {
  const cluster = config.getCurrentCluster();
  if (!cluster) throw new Error('no cluster: set KUBECONFIG, or run inside a cluster');
  const tls: { ca?: string | Buffer; cert?: string; key?: string; rejectUnauthorized?: boolean } = {};
  await config.applyToHTTPSOptions(tls as never);
  const agent = new Agent({
    connect: {
      ca: tls.ca,
      cert: tls.cert,
      key: tls.key,
      rejectUnauthorized: tls.rejectUnauthorized !== false,
      timeout: 10_000,
    },
    connections: 64,
    // Streams are watched for silence here; headers of any answer come quickly.
    bodyTimeout: 0,
    headersTimeout: TIMEOUT,
  });

  /** Read for each request: in a cluster the token is rotated. */
  async function authorization(): Promise<Record<string, string>> {
    const options = { headers: {} as Record<string, string> };
    await config.applyToHTTPSOptions(options as never);
    const value = options.headers.Authorization ?? options.headers.authorization;
    return value ? { authorization: value } : {};
  }

  async function send(
    verb: string,
    name: string,
    method: Dispatcher.HttpMethod,
    path: string,
    body: { type: string; value: unknown } | undefined,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const started = performance.now();
    const done = (code: number) => observe(verb, name, code, (performance.now() - started) / 1000);
    let response: Dispatcher.ResponseData;
    try {
      response = await request(`${cluster!.server}${path}`, {
        dispatcher: agent,
        method,
        headers: {
          accept: 'application/json',
          'user-agent': 'fovea',
          ...(body ? { 'content-type': body.type } : {}),
          ...(await authorization()),
        },
        body: body ? JSON.stringify(body.value) : null,
        signal,
      });
    } catch (error) {
      done(0);
      throw signal.aborted && signal.reason instanceof Error ? signal.reason : error;
    }
    done(response.statusCode);
    if (response.statusCode < 300) return response;
    const text = await response.body.text();
    let status: Status;
    try {
      status = JSON.parse(text) as Status;
    } catch {
      status = { message: text.slice(0, 500) };
    }
    const retryAfter = Number(response.headers['retry-after']);
    throw new ApiError(
      `${method} ${path}`,
      response.statusCode,
      status,
      Number.isFinite(retryAfter) ? retryAfter : undefined,
    );
  }

  /** `repeat`: the request may be sent again after an answer that was lost. */
  async function json<T>(
    verb: string,
    of: Resource | undefined,
    method: Dispatcher.HttpMethod,
    path: string,
    body?: { type: string; value: unknown },
    repeat = method === 'GET',
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await send(verb, of?.plural ?? 'raw', method, path, body, AbortSignal.timeout(TIMEOUT));
        return (await response.body.json()) as T;
      } catch (error) {
        // 429 is said before anything was done, so that any request may be repeated.
        const again = isTransient(error) && (repeat || (error instanceof ApiError && error.code === 429));
        if (!again || attempt === TRIES) throw error;
        const asked = error instanceof ApiError ? error.retryAfterSeconds : undefined;
        await new Promise((resolve) => setTimeout(resolve, asked ? asked * 1000 : backoff(attempt, 100, 2000)));
      }
    }
  }

  const query = (values: Record<string, string | number | undefined>) => {
    const pairs = Object.entries(values).filter(([, value]) => value !== undefined && value !== '');
    return pairs.length === 0
      ? ''
      : `?${new URLSearchParams(pairs.map(([key, value]): [string, string] => [key, String(value)]))}`;
  };
  const of = (object: KubeObject) => [object.metadata?.namespace, object.metadata?.name ?? ''] as const;
  const JSON_TYPE = 'application/json';

  return {
    server: cluster.server,
    get: (kind, namespace, name) => json('get', kind, 'GET', resourcePath(kind, namespace, name)),
    list: (kind, { namespace, ...select }, page = {}) =>
      json('list', kind, 'GET', resourcePath(kind, namespace) + query({ ...select, ...page })),
    create: (kind, object) =>
      json('create', kind, 'POST', resourcePath(kind, object.metadata?.namespace), { type: JSON_TYPE, value: object }),
    apply: (kind, object, fieldManager) =>
      json(
        'apply',
        kind,
        'PATCH',
        resourcePath(kind, ...of(object)) + query({ fieldManager, force: 'true' }),
        { type: 'application/apply-patch+yaml', value: object },
        true,
      ),
    patch: (kind, namespace, name, patch) =>
      json('patch', kind, 'PATCH', resourcePath(kind, namespace, name), {
        type: 'application/merge-patch+json',
        value: patch,
      }),
    replace: (kind, object) =>
      json('update', kind, 'PUT', resourcePath(kind, ...of(object)), { type: JSON_TYPE, value: object }),
    replaceStatus: (kind, object) =>
      json('update', kind, 'PUT', resourcePath(kind, ...of(object), 'status'), { type: JSON_TYPE, value: object }),
    delete: async (kind, namespace, name, uid) => {
      await json('delete', kind, 'DELETE', resourcePath(kind, namespace, name), {
        type: JSON_TYPE,
        value: { propagationPolicy: 'Background', ...(uid ? { preconditions: { uid } } : {}) },
      });
    },
    watch: async function* <T extends KubeObject>(
      kind: Resource,
      { namespace, ...select }: Selection,
      resourceVersion: string,
      signal: AbortSignal,
    ): AsyncGenerator<WatchEvent<T>> {
      const path =
        resourcePath(kind, namespace) +
        query({
          ...select,
          watch: 'true',
          allowWatchBookmarks: 'true',
          resourceVersion,
          timeoutSeconds: WATCH_SECONDS,
        });
      const silence = new AbortController();
      const quiet = () => silence.abort(new Error(`watch of ${kind.plural}: silent for ${WATCH_SILENCE / 1000} s`));
      let timer = setTimeout(quiet, WATCH_SILENCE);
      try {
        const response = await send(
          'watch',
          kind.plural,
          'GET',
          path,
          undefined,
          AbortSignal.any([signal, silence.signal]),
        );
        let rest = '';
        const decoder = new TextDecoder();
        for await (const chunk of response.body) {
          clearTimeout(timer);
          timer = setTimeout(quiet, WATCH_SILENCE);
          rest += decoder.decode(chunk as Uint8Array, { stream: true });
          let end = rest.indexOf('\n');
          while (end >= 0) {
            const line = rest.slice(0, end);
            rest = rest.slice(end + 1);
            if (line.trim() !== '') yield JSON.parse(line) as WatchEvent<T>;
            end = rest.indexOf('\n');
          }
        }
      } finally {
        clearTimeout(timer);
        silence.abort();
      }
    },
    raw: (path) => json('get', undefined, 'GET', path),
    close: () => agent.destroy(),
  };
}
