/** Requests to the API server. Objects are plain JSON: unknown fields are kept. */
import { setTimeout as delay } from 'node:timers/promises';
import type { KubeConfig } from '@kubernetes/client-node';
import { type Dispatcher, request } from 'undici';
import { backoff } from './backoff.ts';
import { credentialsOf, loadConfig } from './credentials.ts';
import { ApiError, ConnectionError, isTransient, type Status } from './errors.ts';
import { apiVersionOf, type KubeObject, type Resource, resourcePath } from './resources.ts';
import { type Term, TermOver } from './term.ts';

export interface List<T> {
  metadata: { resourceVersion: string; continue?: string };
  items: T[];
}

export interface WatchEvent<T> {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  object: T;
}

export interface Selection {
  /** Absent: all. */
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
}

/** Called for each answer with the time to its headers, and with code 0 for a connection that failed. */
export type RequestObserver = (verb: string, resource: string, code: number, seconds: number) => void;

/**
 * Every method throws ApiError for what the server refused and ConnectionError where no answer came. Reads and `apply` are
 * tried again where that may help; the other writes only where the server says that it did nothing (429), since what is written
 * must be decided again on what is there.
 */
export interface Client {
  readonly server: string;
  /**
   * The same client for as long as the term lasts: afterwards no request is begun, and one under way is broken off. Both throw
   * TermOver. Whether the server still did what was broken off is not known.
   */
  during(term: Pick<Term, 'signal' | 'check'>): Client;
  get<T extends KubeObject>(of: Resource, namespace: string | undefined, name: string): Promise<T>;
  /** One page; `reflect` reads whole lists. */
  list<T extends KubeObject>(
    of: Resource,
    select: Selection,
    page?: { limit?: number; continue?: string },
    signal?: AbortSignal,
  ): Promise<List<T>>;
  create<T extends KubeObject>(of: Resource, object: T): Promise<T>;
  /** Server-side apply; takes over fields that other managers hold. */
  apply<T extends KubeObject>(of: Resource, object: T, fieldManager: string): Promise<T>;
  /** JSON merge patch (RFC 7386). */
  patch<T extends KubeObject>(of: Resource, namespace: string | undefined, name: string, patch: object): Promise<T>;
  /** Replaces all but the status; fails with Conflict if `metadata.resourceVersion` is given and not the present one. */
  replace<T extends KubeObject>(of: Resource, object: T): Promise<T>;
  /** Replaces the status; fails with Conflict if `metadata.resourceVersion` is given and not the present one. */
  replaceStatus<T extends KubeObject>(of: Resource, object: T): Promise<T>;
  /** Deletes, in the background with what it owns; `uid` guards against a later object of the same name. */
  delete(of: Resource, namespace: string | undefined, name: string, uid?: string): Promise<void>;
  /**
   * Events after `resourceVersion`, until the server ends the stream (after about `seconds`), it breaks (ConnectionError) or
   * `signal` aborts (its reason is thrown).
   */
  watch<T extends KubeObject>(
    of: Resource,
    select: Selection,
    resourceVersion: string,
    signal: AbortSignal,
    seconds?: number,
  ): AsyncGenerator<WatchEvent<T>>;
  /** GET of any path, as JSON. */
  raw(path: string): Promise<unknown>;
  /** Ends all connections; what is under way fails. */
  close(): Promise<void>;
}

/** Time for a whole request that is no watch, in ms. */
const TIMEOUT = 30_000;
/** Tries of a request that may be repeated. */
const TRIES = 4;
/** Longest wait between two tries in ms, also if the server asks for more: whoever asked has a back-off of its own. */
const LONGEST_WAIT = 5_000;
/** A watch event in characters. etcd takes objects of 1.5 MiB; a stream without line ends must not fill the memory. */
const LONGEST_LINE = 32 * 2 ** 20;

type Body = { type: string; value: unknown };

interface Call {
  /** As in metrics: get, list, watch, create, update, patch, apply, delete. */
  verb: string;
  /** Plural of the resource; `raw` for a path. */
  resource: string;
  method: Dispatcher.HttpMethod;
  path: string;
  body?: Body;
  /** May be sent again although the server may have done it. Default: reads. */
  repeatable?: boolean;
  signal?: AbortSignal;
  /** Not to be begun when it is over, nor to outlast it. */
  term?: Pick<Term, 'signal' | 'check'>;
}

export interface ConnectOptions {
  observe?: RequestObserver;
  /** How the server's audit log knows us. Default: fovea. */
  userAgent?: string;
}

/** @throws Error if `config` names no cluster, or its credentials cannot be read */
export async function connect(config: KubeConfig = loadConfig(), options: ConnectOptions = {}): Promise<Client> {
  const { observe = () => {}, userAgent = 'fovea' } = options;
  const credentials = credentialsOf(config);
  await credentials.access();

  /** Resolves with an answer of success whose body is still to be read. */
  async function send(
    { verb, resource, method, path, body, term }: Call,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const { dispatcher, headers } = await credentials.access();
    signal.throwIfAborted();
    const started = performance.now();
    const done = (code: number) => observe(verb, resource, code, (performance.now() - started) / 1000);
    let response: Dispatcher.ResponseData;
    try {
      response = await request(credentials.server + path, {
        dispatcher: term ? fenced(dispatcher, term) : dispatcher,
        method,
        headers: {
          // The API server's keys have a type of their own (application/jwk-set+json).
          accept: 'application/json, application/jwk-set+json;q=0.9',
          'user-agent': userAgent,
          ...(body ? { 'content-type': body.type } : {}),
          ...headers,
        },
        body: body ? JSON.stringify(body.value) : null,
        signal,
      });
    } catch (error) {
      if (error instanceof TermOver) throw error;
      done(0);
      throw signal.aborted ? signal.reason : new ConnectionError(`${method} ${path}`, error);
    }
    done(response.statusCode);
    if (response.statusCode >= 200 && response.statusCode < 300) return response;
    if (response.statusCode === 401) credentials.refused();
    throw await refusal(`${method} ${path}`, response);
  }

  async function once<T>(call: Call): Promise<T> {
    const name = `${call.method} ${call.path}`;
    const limit = new AbortController();
    const signals = [call.signal, call.term?.signal].filter((signal) => signal !== undefined);
    const abort = () => limit.abort(signals.find((signal) => signal.aborted)?.reason);
    const timer = setTimeout(() => {
      limit.abort(new ConnectionError(name, new Error(`no whole answer within ${TIMEOUT / 1000} s`)));
    }, TIMEOUT);
    for (const signal of signals) signal.addEventListener('abort', abort);
    if (signals.some((signal) => signal.aborted)) abort();
    try {
      const response = await send(call, limit.signal);
      try {
        return (await response.body.json()) as T;
      } catch (error) {
        throw limit.signal.aborted ? limit.signal.reason : new ConnectionError(name, error);
      }
    } finally {
      clearTimeout(timer);
      for (const signal of signals) signal.removeEventListener('abort', abort);
    }
  }

  async function json<T>(call: Call): Promise<T> {
    const repeatable = call.repeatable ?? call.method === 'GET';
    for (let attempt = 1; ; attempt++) {
      try {
        return await once<T>(call);
      } catch (error) {
        const refused = error instanceof ApiError ? error : undefined;
        // Said before anything was done: 429, and once 401, after which the credentials are read again.
        const untouched = refused?.code === 429 || (refused?.code === 401 && attempt === 1);
        if (attempt === TRIES || !(untouched || (repeatable && isTransient(error)))) throw error;
        const asked = (refused?.retryAfterSeconds ?? 0) * 1000;
        await wait(Math.min(LONGEST_WAIT, asked || backoff(attempt, 100, LONGEST_WAIT)), [
          call.signal,
          call.term?.signal,
        ]);
      }
    }
  }

  const at = (of: Resource, object: KubeObject, subresource?: string) =>
    resourcePath(of, object.metadata?.namespace, object.metadata?.name ?? '', subresource);

  function clientDuring(term: Call['term']): Client {
    const call = (verb: string, of: Resource, method: Dispatcher.HttpMethod, path: string, body?: Body): Call => ({
      verb,
      resource: of.plural,
      method,
      path,
      body,
      term,
    });
    return {
      server: credentials.server,
      during: (other) => clientDuring(other),
      get: (of, namespace, name) => json(call('get', of, 'GET', resourcePath(of, namespace, name))),
      async list<T extends KubeObject>(
        of: Resource,
        { namespace, ...select }: Selection,
        page = {},
        signal?: AbortSignal,
      ) {
        const path = resourcePath(of, namespace) + query({ ...select, ...page });
        const list = await json<List<T>>({ ...call('list', of, 'GET', path), signal });
        // The server leaves out of items what the list says once.
        for (const item of list.items) Object.assign(item, { apiVersion: apiVersionOf(of), kind: of.kind });
        return list;
      },
      create: (of, object) =>
        json(
          call('create', of, 'POST', resourcePath(of, object.metadata?.namespace), { type: JSON_TYPE, value: object }),
        ),
      apply: (of, object, fieldManager) => {
        const path = at(of, object) + query({ fieldManager, force: 'true' });
        const body = { type: 'application/apply-patch+yaml', value: object };
        return json({ ...call('apply', of, 'PATCH', path, body), repeatable: true });
      },
      patch: (of, namespace, name, patch) => {
        const body = { type: 'application/merge-patch+json', value: patch };
        return json(call('patch', of, 'PATCH', resourcePath(of, namespace, name), body));
      },
      replace: (of, object) => json(call('update', of, 'PUT', at(of, object), { type: JSON_TYPE, value: object })),
      replaceStatus: (of, object) =>
        json(call('update', of, 'PUT', at(of, object, 'status'), { type: JSON_TYPE, value: object })),
      delete: async (of, namespace, name, uid) => {
        const value = { propagationPolicy: 'Background', ...(uid ? { preconditions: { uid } } : {}) };
        await json(call('delete', of, 'DELETE', resourcePath(of, namespace, name), { type: JSON_TYPE, value }));
      },
      async *watch<T extends KubeObject>(
        of: Resource,
        { namespace, ...select }: Selection,
        resourceVersion: string,
        signal: AbortSignal,
        seconds?: number,
      ): AsyncGenerator<WatchEvent<T>> {
        const path =
          resourcePath(of, namespace) +
          query({ ...select, watch: 'true', allowWatchBookmarks: 'true', resourceVersion, timeoutSeconds: seconds });
        const all = term ? AbortSignal.any([signal, term.signal]) : signal;
        const response = await send(call('watch', of, 'GET', path), all);
        try {
          for await (const line of lines(response.body)) yield JSON.parse(line) as WatchEvent<T>;
        } catch (error) {
          throw all.aborted ? all.reason : new ConnectionError(`watch ${path}`, error);
        }
      },
      raw: (path) => json({ verb: 'get', resource: 'raw', method: 'GET', path, term }),
      close: () => credentials.close(),
    };
  }
  return clientDuring(undefined);
}

const JSON_TYPE = 'application/json';

/** Asks `term` once more when the connection is there and the request is about to be written to it. */
function fenced(dispatcher: Dispatcher, term: NonNullable<Call['term']>): Dispatcher {
  return dispatcher.compose((dispatch) => (options, handler) => {
    const begin = handler.onRequestStart?.bind(handler);
    handler.onRequestStart = (controller, context) => {
      term.check();
      begin?.(controller, context);
    };
    return dispatch(options, handler);
  });
}

/** Waits; rejects with the reason of a signal that aborts. */
async function wait(ms: number, signals: readonly (AbortSignal | undefined)[]): Promise<void> {
  const signal = AbortSignal.any(signals.filter((each) => each !== undefined));
  await delay(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
}

function query(values: Record<string, string | number | undefined>): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined && value !== '') parameters.set(name, String(value));
  }
  return parameters.size === 0 ? '' : `?${parameters}`;
}

/** The error an answer without success stands for. What is no metav1.Status (a proxy's page) becomes its message. */
async function refusal(name: string, { statusCode, headers, body }: Dispatcher.ResponseData): Promise<ApiError> {
  const text = await body.text().catch(() => '');
  let status: Status;
  try {
    status = JSON.parse(text) as Status;
    if (typeof status !== 'object' || status === null) throw new SyntaxError();
  } catch {
    status = { message: text.slice(0, 500) || 'no message' };
  }
  const retryAfter = Number(headers['retry-after'] ?? Number.NaN);
  return new ApiError(name, statusCode, status, Number.isFinite(retryAfter) ? retryAfter : undefined);
}

/** Whole lines of a stream; a last one without an end was cut, and is left out. */
async function* lines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of chunks) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = parts.pop() ?? '';
    if (rest.length > LONGEST_LINE) throw new Error(`an event of more than ${LONGEST_LINE} characters`);
    for (const line of parts) if (line.trim() !== '') yield line;
  }
}
