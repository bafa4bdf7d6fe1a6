/**
 * A proxy between one operator and the API server: it counts the operator's writes and asks at each what becomes of it, and it
 * can hold back, break and backdate what the operator sees of a resource. It decides nothing by itself.
 */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Access } from '../cluster/requests.ts';

/** A write of the operator. Leases and Events are none, see `isCounted`. */
export interface Write {
  /** From 1, over all operators that came through this proxy. */
  n: number;
  /** As `PUT datasets/d/status`. */
  what: string;
}

export interface Rules {
  /** Asked before the server hears of a write. `lost`: it never does, and no answer comes. */
  before(write: Write): Promise<'pass' | 'lost'>;
  /** Asked when the server has carried out (or refused) a write. `lost`: no answer comes. */
  after(write: Write): Promise<'pass' | 'lost'>;
  /** Resolves when the resource's watches may go on. Asked before anything of them is passed on. */
  flowing(plural: string): Promise<void>;
  /** Whether requests for lists and watches of the resource find nobody, or are told that their resourceVersion is too old. */
  reading(plural: string, isWatch: boolean): 'pass' | 'refuse' | 'gone';
  /** The resourceVersion of which lists of the resource are answered. Undefined: the newest. */
  listedAt(plural: string): string | undefined;
}

export const UNDISTURBED: Rules = {
  before: async () => 'pass',
  after: async () => 'pass',
  flowing: async () => {},
  reading: () => 'pass',
  listedAt: () => undefined,
};

export interface RecordingProxy extends AsyncDisposable {
  rules: Rules;
  /** All writes so far. */
  readonly writes: Write[];
  /** No writes before this is called are counted. */
  count(): void;
  /** Plurals of the resources that are watched now. */
  watched(): Set<string>;
  /** Lease writes that succeeded, and requests for Leases at all, since the operator was cut off last. */
  readonly leases: { asked: number; written: number };
  /** Breaks the watches of the resource. */
  cut(plural: string): void;
  /** Nobody gets through until `open`; what is under way is broken. */
  close(): void;
  open(): void;
  /** Writes a kubeconfig of the proxy. */
  kubeconfig(file: string): Promise<void>;
}

/**
 * Leases are renewed by the clock, not by what happens, and have a test of their own. Events are said after the fact and may be
 * lost with the process that has them in memory: nothing is decided by them.
 */
function isCounted(method: string, { plural }: Target): boolean {
  return method !== 'GET' && plural !== 'leases' && plural !== 'events';
}

interface Target {
  plural: string;
  name: string | undefined;
  subresource: string | undefined;
}

/** `/apis/batch/v1/namespaces/a/jobs/b/status` is of `jobs`, `b`, `status`. */
function targetOf(path: string): Target {
  const parts = path.split('/').filter((part) => part !== '');
  const afterVersion = parts.slice(parts[0] === 'api' ? 2 : 3);
  const inside = afterVersion[0] === 'namespaces' && afterVersion.length > 2 ? afterVersion.slice(2) : afterVersion;
  return { plural: inside[0] ?? '', name: inside[1], subresource: inside[2] };
}

export async function startRecordingProxy(upstream: Access): Promise<RecordingProxy> {
  const agent = new Agent({ keepAlive: true, ca: upstream.ca, cert: upstream.certificate, key: upstream.privateKey });
  const watches = new Map<ServerResponse, string>();
  const writes: Write[] = [];
  let counting = false;
  let isOpen = true;

  /** Sends the request on. Resolves with the answer's head; its body is still to be read. */
  function forward(
    request: IncomingMessage,
    url: URL,
    body: Buffer,
    response: ServerResponse,
  ): Promise<IncomingMessage> {
    const { host, 'transfer-encoding': _, ...headers } = request.headers;
    // Node leaves it out of a DELETE, and the server takes the body for the next request.
    if (body.length > 0) headers['content-length'] = `${body.length}`;
    return new Promise((resolve, reject) => {
      const outgoing = httpsRequest(url, { agent, method: request.method, headers }, resolve);
      outgoing.on('error', reject);
      // A write goes on without its sender; a read is of no use to anybody else.
      if (request.method === 'GET') response.on('close', () => outgoing.destroy());
      outgoing.end(body.length > 0 ? body : undefined);
    });
  }

  async function watch(incoming: IncomingMessage, plural: string, response: ServerResponse): Promise<void> {
    watches.set(response, plural);
    response.on('close', () => watches.delete(response));
    response.writeHead(incoming.statusCode ?? 502, incoming.headers);
    response.flushHeaders();
    for await (const chunk of incoming) {
      await proxy.rules.flowing(plural);
      if (response.destroyed) return;
      response.write(chunk);
    }
    response.end();
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!isOpen) return void response.destroy();
    const url = new URL(request.url ?? '', upstream.server);
    const target = targetOf(url.pathname);
    const method = request.method ?? '';
    const isWatch = url.searchParams.get('watch') === 'true';
    const isList = method === 'GET' && target.name === undefined;
    const body = await bytes(request);

    if (isList) {
      const reading = proxy.rules.reading(target.plural, isWatch);
      if (reading === 'refuse') return void response.destroy();
      if (reading === 'gone') return gone(response);
      // Caches are filled in pages. What is listed at once is asked for because it must be new, which the server warrants.
      const isPage = url.searchParams.has('limit') && !url.searchParams.has('continue');
      const at = isPage ? proxy.rules.listedAt(target.plural) : undefined;
      if (at !== undefined) {
        url.searchParams.set('resourceVersion', at);
        url.searchParams.set('resourceVersionMatch', 'Exact');
      }
      if (isWatch) await proxy.rules.flowing(target.plural);
    }

    let write: Write | undefined;
    if (counting && isCounted(method, target)) {
      const name = target.name ?? (JSON.parse(body.toString()) as { metadata?: { name?: string } }).metadata?.name;
      const what = [target.plural, name, target.subresource].filter((part) => part !== undefined).join('/');
      write = { n: writes.length + 1, what: `${method} ${what}` };
      writes.push(write);
      if ((await proxy.rules.before(write)) === 'lost') return void response.destroy();
    }
    const incoming = await forward(request, url, body, response);
    if (isWatch && incoming.statusCode === 200) return watch(incoming, target.plural, response);
    const answer = await bytes(incoming);
    if (target.plural === 'leases') {
      proxy.leases.asked += 1;
      if (method !== 'GET' && (incoming.statusCode ?? 500) < 300) proxy.leases.written += 1;
    }
    if (write && (await proxy.rules.after(write)) === 'lost') return void response.destroy();
    const { 'transfer-encoding': _, ...headers } = incoming.headers;
    response.writeHead(incoming.statusCode ?? 502, { ...headers, 'content-length': answer.length });
    response.end(answer);
  }

  const server = createServer((request, response) => {
    response.on('error', () => {});
    handle(request, response).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const proxy: RecordingProxy = {
    rules: UNDISTURBED,
    writes,
    leases: { asked: 0, written: 0 },
    count: () => {
      counting = true;
    },
    watched: () => new Set(watches.values()),
    cut(plural) {
      for (const [response, of] of watches) if (of === plural) response.destroy();
    },
    close() {
      isOpen = false;
      server.closeAllConnections();
      proxy.leases.asked = 0;
      proxy.leases.written = 0;
    },
    open() {
      isOpen = true;
    },
    kubeconfig: (file) =>
      writeFile(
        file,
        JSON.stringify({
          apiVersion: 'v1',
          kind: 'Config',
          clusters: [{ name: 'proxy', cluster: { server: address, 'insecure-skip-tls-verify': true } }],
          users: [{ name: 'proxy', user: {} }],
          contexts: [{ name: 'proxy', context: { cluster: 'proxy', user: 'proxy' } }],
          'current-context': 'proxy',
        }),
      ),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      agent.destroy();
      await once(server, 'close');
    },
  };
  return proxy;
}

async function bytes(stream: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function gone(response: ServerResponse): void {
  const status = { kind: 'Status', apiVersion: 'v1', status: 'Failure', code: 410, reason: 'Expired' };
  response.writeHead(410, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ ...status, message: 'too old resource version' }));
}
