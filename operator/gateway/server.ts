/** The gateway's listener: receives requests within bounds, hands them to exchanges, answers for its own health, and drains. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, Server as NetServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Dispatcher } from 'undici';
import type { LiveRoute } from './backends.ts';
import { exchange, REVISION_HEADER, sendError } from './exchange.ts';
import type { GatewayMetrics } from './metrics.ts';
import { type Target, target } from './routes.ts';
import type { RoutingTable } from './table.ts';

/** Bytes of request bodies held at once, over all requests; beyond it clients are asked to come again. */
const BODIES_IN_MEMORY = 256 * 2 ** 20;
/** Milliseconds that a client whose body is refused may go on sending, so that it can read the answer. */
const LINGER = 5000;
/** A client that left before its answer, as nginx counts it. */
const CLIENT_CLOSED = 499;
/** Milliseconds for a request that has arrived on an idle connection to be read, when the port is closed. */
const UNREAD = 100;

const CLASSIFY_METHODS = ['POST'];
const PROTOCOL_METHODS = ['GET', 'HEAD', 'POST'];
const PATHS =
  'this gateway answers /v1/namespaces/{namespace}/inferenceservices/{name}:classify and, for the Open Inference Protocol, /v1/namespaces/{namespace}/inferenceservices/{name}/v2/...';

export interface GatewayOptions {
  table: Pick<RoutingTable, 'find'>;
  metrics: GatewayMetrics;
  /** Address to listen on. */
  address: string;
  /** 0: any free one. */
  port: number;
  /** Whether the routing table is complete. */
  ready: () => boolean;
}

export interface GatewayServer {
  port: number;
  /**
   * Says not ready, takes what still comes for `noticeMilliseconds` (a Service needs a moment to leave the pod out), then takes
   * no connection more and resolves when every request is answered; what is not after `graceMilliseconds` is cut off.
   */
  drain(noticeMilliseconds: number, graceMilliseconds: number): Promise<void>;
}

export async function startGateway({ table, metrics, address, port, ready }: GatewayOptions): Promise<GatewayServer> {
  let draining = false;
  let bodies = 0;

  const server = createServer(
    // Idle connections are kept for longer than load balancers keep theirs (60 s), so that it is they who close them.
    { keepAliveTimeout: 75_000, headersTimeout: 10_000, requestTimeout: 120_000 },
    (request, response) => {
      if (draining) response.setHeader('connection', 'close');
      const found = target(request.url!);
      if (found) serve(found, request, response);
      else own(request, response);
    },
  );

  function serve(found: Target, request: IncomingMessage, response: ServerResponse): void {
    const { namespace, name, path, classify } = found;
    const latest = () => table.find(namespace, name);
    const route = latest();
    const ended = metrics.begin(route);
    response.once('close', () => {
      const code = response.writableFinished ? response.statusCode : CLIENT_CLOSED;
      ended(String(response.getHeader(REVISION_HEADER) ?? ''), code);
    });
    const method = request.method as Dispatcher.HttpMethod;
    if (!route) sendError(response, 404, `there is no InferenceService ${namespace}/${name}`);
    else if (!(classify ? CLASSIFY_METHODS : PROTOCOL_METHODS).includes(method)) {
      const allow = (classify ? CLASSIFY_METHODS : PROTOCOL_METHODS).join(', ');
      sendError(response, 405, `${method} is not for this path, only ${allow}`, { allow });
    } else {
      receive(request, response, route, (body) => {
        const forwarded = { method, path, rawHeaders: request.rawHeaders, body };
        exchange(route, forwarded, response, { latest, retried: (reason) => metrics.retried(route, reason) });
      });
    }
  }

  /** The whole body, since another attempt needs it again. */
  function receive(
    request: IncomingMessage,
    response: ServerResponse,
    { maxBodyBytes }: LiveRoute,
    done: (body: Buffer | null) => void,
  ): void {
    const declared = Number(request.headers['content-length'] ?? Number.NaN);
    if (Number.isNaN(declared) && request.headers['transfer-encoding'] === undefined) {
      request.resume();
      done(null);
      return;
    }
    // A body of unknown length counts as the largest.
    const reserved = Number.isNaN(declared) ? maxBodyBytes : declared;
    if (declared > maxBodyBytes) {
      refuse(413, `the body has ${declared} bytes, of at most ${maxBodyBytes}`);
      return;
    }
    if (bodies + reserved > BODIES_IN_MEMORY && bodies > 0) {
      refuse(503, 'too many requests are in progress; send the request again later', { 'retry-after': '1' });
      return;
    }
    bodies += reserved;
    response.once('close', () => {
      bodies -= reserved;
    });

    const chunks: Buffer[] = [];
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length <= maxBodyBytes) chunks.push(chunk);
      else if (!response.headersSent) {
        chunks.length = 0;
        refuse(413, `the body has more than ${maxBodyBytes} bytes`);
      }
    });
    request.on('end', () => {
      if (!response.headersSent) done(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, length));
    });

    function refuse(status: number, message: string, headers = {}): void {
      sendError(response, status, message, headers);
      // Node reads and drops the rest, and the connection can be used again; but not for ever.
      request.resume();
      setTimeout(() => {
        if (!request.complete) request.socket.destroy();
      }, LINGER).unref();
    }
  }

  async function own(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.method === 'GET' ? request.url : undefined;
    if (path === '/healthz') sendText(response, 200, 'ok\n');
    else if (path === '/readyz') {
      const obstacle = draining ? 'draining' : ready() ? undefined : 'routes are not complete';
      sendText(response, obstacle ? 503 : 200, `${obstacle ?? 'ok'}\n`);
    } else if (path === '/metrics') {
      sendText(response, 200, await metrics.registry.metrics(), metrics.registry.contentType);
    } else sendError(response, 404, PATHS);
  }

  server.listen(port, address);
  await once(server, 'listening');

  return {
    port: (server.address() as AddressInfo).port,
    async drain(noticeMilliseconds, graceMilliseconds) {
      draining = true;
      await delay(noticeMilliseconds);
      const closed = once(server, 'close');
      // Only the port: http's own close would also end a connection whose request has come but is not read yet.
      NetServer.prototype.close.call(server);
      await delay(Math.min(UNREAD, graceMilliseconds));
      server.closeIdleConnections();
      const cut = setTimeout(() => server.closeAllConnections(), graceMilliseconds);
      await closed;
      clearTimeout(cut);
    },
  };
}

function sendText(response: ServerResponse, status: number, text: string, type = 'text/plain'): void {
  response.writeHead(status, { 'content-type': type });
  response.end(text);
}
