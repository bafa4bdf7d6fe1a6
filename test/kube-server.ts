/**
 * A small HTTP server that lists and watches pods as the API server does, and breaks when told to: for tests that need a fault
 * at one place, which a real server does not give on demand.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { KubeConfig } from '@kubernetes/client-node';

export interface Pod {
  apiVersion?: string;
  kind?: string;
  metadata: { name: string; namespace: string; uid: string; resourceVersion: string; labels?: Record<string, string> };
}

interface Event {
  type: string;
  object: Pod;
}

export class KubeServer implements AsyncDisposable {
  /** All that were asked, `GET /api/v1/pods?limit=500`, in order. */
  readonly requests: string[] = [];
  /** May answer instead; true: it did. */
  intercept: (request: IncomingMessage, response: ServerResponse, body: string) => boolean = () => false;
  readonly pods = new Map<string, Pod>();
  #events: Event[] = [];
  #version = 1;
  #oldest = 0;
  #uids = 0;
  readonly #watches = new Map<ServerResponse, string | undefined>();
  readonly #server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => {
      body += chunk;
    });
    request.on('end', () => this.#answer(request, response, body));
  });

  static async start(): Promise<KubeServer> {
    const server = new KubeServer();
    server.#server.listen(0, '127.0.0.1');
    await once(server.#server, 'listening');
    return server;
  }

  get config(): KubeConfig {
    const config = new KubeConfig();
    const { port } = this.#server.address() as AddressInfo;
    config.loadFromClusterAndUser(
      { name: 'test', server: `http://127.0.0.1:${port}`, skipTLSVerify: true },
      { name: 'test', token: 'secret' },
    );
    return config;
  }

  /** Creates or changes a pod; `metadata.labels` tell the states apart. */
  put(name: string, labels: Record<string, string> = {}, namespace = 'default'): Pod {
    const key = `${namespace}/${name}`;
    const known = this.pods.get(key);
    const uid = known?.metadata.uid ?? `uid-${++this.#uids}`;
    const pod = { metadata: { name, namespace, uid, resourceVersion: String(++this.#version), labels } };
    this.pods.set(key, pod);
    this.#emit({ type: known ? 'MODIFIED' : 'ADDED', object: pod });
    return pod;
  }

  remove(name: string, namespace = 'default'): void {
    const key = `${namespace}/${name}`;
    const known = this.pods.get(key);
    if (!known) throw new Error(`no pod ${key}`);
    this.pods.delete(key);
    const metadata = { ...known.metadata, resourceVersion: String(++this.#version) };
    this.#emit({ type: 'DELETED', object: { ...known, metadata } });
  }

  bookmark(): void {
    this.send({ type: 'BOOKMARK', object: { kind: 'Pod', metadata: { resourceVersion: String(this.#version) } } });
  }

  /** Sends to the open watches as it is; the server's own state stays. */
  send(event: { type: string; object: object }): void {
    for (const response of this.#watches.keys()) response.write(`${JSON.stringify(event)}\n`);
  }

  /** Breaks the connections of all open watches, in the middle of an event if asked to. */
  cut(half = ''): void {
    for (const response of this.#watches.keys()) {
      if (half) response.write(half, () => response.destroy());
      else response.destroy();
    }
    this.#watches.clear();
  }

  /** Ends all open watches as after their time. */
  end(): void {
    for (const response of this.#watches.keys()) response.end();
    this.#watches.clear();
  }

  /** Forgets all events until now: watches from before get 410. */
  compact(): void {
    this.#oldest = this.#version;
    this.#events = [];
  }

  /** Forgets everything and starts again at a low resourceVersion, as a server made anew. */
  reset(): void {
    this.pods.clear();
    this.#events = [];
    this.#version = 1;
    this.#oldest = 0;
  }

  get watching(): number {
    return this.#watches.size;
  }

  count(pattern: RegExp): number {
    return this.requests.filter((request) => pattern.test(request)).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #emit(event: Event): void {
    this.#events.push(event);
    for (const [response, namespace] of this.#watches) {
      if (namespace === undefined || namespace === event.object.metadata.namespace) {
        response.write(`${JSON.stringify(event)}\n`);
      }
    }
  }

  #answer(request: IncomingMessage, response: ServerResponse, body: string): void {
    this.requests.push(`${request.method} ${request.url}`);
    if (this.intercept(request, response, body)) return;
    const url = new URL(request.url ?? '', 'http://localhost');
    const namespace = /^\/api\/v1\/namespaces\/([^/]+)\/pods$/.exec(url.pathname)?.[1];
    if (!namespace && url.pathname !== '/api/v1/pods') {
      refuse(response, 404, { reason: 'NotFound', message: 'the server could not find the requested resource' });
    } else if (url.searchParams.get('watch') === 'true') this.#watch(url, response, namespace);
    else this.#list(url, response, namespace);
  }

  #list(url: URL, response: ServerResponse, namespace: string | undefined): void {
    const from = Number(url.searchParams.get('continue') ?? 0);
    const limit = Number(url.searchParams.get('limit') ?? Infinity);
    const all = [...this.pods.values()].filter((pod) => !namespace || pod.metadata.namespace === namespace);
    const next = from + limit < all.length ? { continue: String(from + limit) } : {};
    const list = {
      kind: 'PodList',
      metadata: { resourceVersion: String(this.#version), ...next },
      items: all.slice(from, from + limit),
    };
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(list));
  }

  #watch(url: URL, response: ServerResponse, namespace: string | undefined): void {
    const from = Number(url.searchParams.get('resourceVersion'));
    response.setHeader('content-type', 'application/json');
    response.flushHeaders();
    if (from < this.#oldest) {
      const object = { kind: 'Status', code: 410, reason: 'Expired', message: `too old resource version: ${from}` };
      response.end(`${JSON.stringify({ type: 'ERROR', object })}\n`);
      return;
    }
    for (const event of this.#events) {
      const { metadata } = event.object;
      if (Number(metadata.resourceVersion) <= from) continue;
      if (!namespace || metadata.namespace === namespace) response.write(`${JSON.stringify(event)}\n`);
    }
    this.#watches.set(response, namespace);
    response.on('close', () => this.#watches.delete(response));
  }
}

/** Answers with a metav1.Status. */
export function refuse(
  response: ServerResponse,
  code: number,
  status: { reason?: string; message?: string } = {},
  headers: Record<string, string> = {},
): true {
  response.writeHead(code, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify({ kind: 'Status', code, ...status }));
  return true;
}

/** Resolves when the condition holds; looks again after each turn of the event loop. */
export async function until(condition: () => boolean, what: string, seconds = 10): Promise<void> {
  const deadline = performance.now() + seconds * 1000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
