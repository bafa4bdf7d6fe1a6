/**
 * One request on its way to a predictor and its answer on the way back, over as many attempts as are safe.
 *
 * An inference changes nothing, so a request may be sent again as long as the client has seen no byte of an answer: after a
 * connection that was refused, reset or lost, and after 503 with Retry-After, which says that the pod did not take it.
 */
import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Dispatcher } from 'undici';
import { avoid, type Backend, choose, type LiveRoute } from './backends.ts';

/** Attempts of one request, the first included. */
const ATTEMPTS = 3;
/** Seconds after which a client may find a ready pod. */
const RETRY_AFTER = '1';

/** Headers of one connection, not of the message (RFC 9110, 7.6.1), and `expect`, which the gateway has answered by itself. */
const HOP_BY_HOP = new Set([
  'connection',
  'expect',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** Errors of a connection, by code, after which another attempt is safe. */
const LOST = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_SOCKET',
  // The pod went, and with it its pool, between the choice and the sending.
  'UND_ERR_CLOSED',
  'UND_ERR_DESTROYED',
]);

/** Those that say nothing listens there: a kept connection that its server has closed says less. */
const UNREACHABLE = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT', 'UND_ERR_CONNECT_TIMEOUT']);

export interface ForwardedRequest {
  method: Dispatcher.HttpMethod;
  /** Path and query at the predictor. */
  path: string;
  /** As received: name, value, name, value, ... */
  rawHeaders: string[];
  body: Buffer | null;
}

/** Header of the answer: the revision whose pod answered. */
export const REVISION_HEADER = 'x-fovea-revision';

export interface ExchangeOptions {
  /** The route as it is by now, for another attempt: pods come and go during a rollout. Undefined: the service is gone. */
  latest: () => LiveRoute | undefined;
  /** Another attempt follows because of `reason`: an error's code, or `503`. */
  retried: (reason: string) => void;
  random?: () => number;
}

/** Answers `{"error": ...}`, the form of the Open Inference Protocol. */
export function sendError(
  response: ServerResponse,
  status: number,
  message: string,
  headers: OutgoingHttpHeaders = {},
): void {
  const body = JSON.stringify({ error: message });
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...headers,
  });
  response.end(body);
}

/** Sends `request` to a pod of `route` and its answer to `response`. */
export function exchange(
  route: LiveRoute,
  request: ForwardedRequest,
  response: ServerResponse,
  { latest, retried, random = Math.random }: ExchangeOptions,
): void {
  const headers = forwardedHeaders(request.rawHeaders);
  const where = `InferenceService ${route.namespace}/${route.name}`;
  const tried: Backend[] = [];
  let controller: Dispatcher.DispatchController | undefined;
  let over = false;

  const deadline = setTimeout(() => {
    if (response.headersSent) response.destroy();
    else sendError(response, 504, `${where} did not answer within ${route.timeoutMilliseconds / 1000} s`);
    end();
  }, route.timeoutMilliseconds);
  response.once('close', end);

  /** Answered, too late, or the client has left: what still runs is stopped. */
  function end(): void {
    if (over) return;
    over = true;
    clearTimeout(deadline);
    controller?.abort(new Error('the exchange is over'));
  }

  /** The next pod; with `again` also one that was tried, when there is no other. */
  function next(again: boolean): Backend | undefined {
    if (tried.length === 0) return choose(route, tried, random);
    const now = latest() ?? route;
    return choose(now, tried, random) ?? (again ? choose(now, [], random) : undefined);
  }

  function attempt(): void {
    const backend = next(true);
    if (!backend) {
      sendError(response, 503, `${where} has no ready replica`, { 'retry-after': RETRY_AFTER });
      return;
    }
    tried.push(backend);
    backend.inFlight += 1;
    let refused = false;

    const another = (reason: string): boolean => {
      if (over || response.headersSent || tried.length >= ATTEMPTS) return false;
      retried(reason);
      return true;
    };
    backend.pool.dispatch(
      { method: request.method, path: request.path, headers, body: request.body },
      {
        onRequestStart(started) {
          controller = started;
          if (over) started.abort(new Error('the exchange is over'));
        },
        onResponseStart(_controller, status, answered) {
          if (status < 200) return;
          // The other pods may have room. The last one's refusal goes to the client, which is told when to come again.
          refused = status === 503 && 'retry-after' in answered && next(false) !== undefined && another('503');
          if (refused) return;
          response.setHeader(REVISION_HEADER, backend.revision);
          response.writeHead(status, returnedHeaders(answered));
        },
        onResponseData(active, chunk) {
          if (refused || response.write(chunk)) return;
          active.pause();
          response.once('drain', () => active.resume());
        },
        onResponseEnd() {
          backend.inFlight -= 1;
          controller = undefined;
          if (refused) attempt();
          else response.end();
        },
        onResponseError(_controller, error) {
          backend.inFlight -= 1;
          controller = undefined;
          if (over) return;
          const code = (error as NodeJS.ErrnoException).code ?? error.name;
          if (UNREACHABLE.has(code)) avoid(backend);
          if (refused || (LOST.has(code) && another(code))) attempt();
          else if (response.headersSent) response.destroy();
          else if (LOST.has(code)) {
            sendError(response, 503, `no replica of ${where} can be reached (${code})`, { 'retry-after': RETRY_AFTER });
          } else sendError(response, 502, `the replica's answer for ${where} could not be read (${code})`);
        },
      },
    );
  }
  attempt();
}

/** Without those of the connection, those that its `Connection` header names, and what the new connection sets by itself. */
function forwardedHeaders(raw: string[]): string[] {
  let named: Set<string> | undefined;
  const kept: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    if (name === 'connection') named = new Set(raw[i + 1]!.toLowerCase().split(/\s*,\s*/));
    else if (name !== 'host' && name !== 'content-length' && !HOP_BY_HOP.has(name)) kept.push(name, raw[i + 1]!);
  }
  if (!named) return kept;
  named.delete('keep-alive');
  named.delete('close');
  return named.size === 0 ? kept : kept.filter((_, i) => !named.has(kept[i - (i % 2)]!));
}

function returnedHeaders(answered: IncomingHttpHeaders): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {};
  for (const name in answered) if (!HOP_BY_HOP.has(name)) headers[name] = answered[name];
  return headers;
}
