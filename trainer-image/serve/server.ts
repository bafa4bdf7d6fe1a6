/** The server's life: it listens, loads its model, serves, and leaves without losing a request. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, Server as NetServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Batching } from '../contract.ts';
import { TrainerError } from '../errors.ts';
import { createApp, type Service } from './app.ts';
import { Batcher } from './batcher.ts';
import { createMetrics } from './metrics.ts';
import type { ServedModel } from './model.ts';

/** Milliseconds in which a request's head, and the whole of it, must arrive: slow senders hold nothing for long. */
const HEADERS_TIMEOUT = 10_000;
const REQUEST_TIMEOUT = 60_000;
/** How often these are checked. */
const TIMEOUT_CHECKS = 2000;
/** Longer than proxies keep their idle connections, so that it is they who close them. */
const KEEP_ALIVE_TIMEOUT = 65_000;
const MAX_CONNECTIONS = 4096;

/** Batches that may wait; more is refused, for it would be answered late. */
const QUEUED_BATCHES = 16;

/** Milliseconds without a new request after which a leaving server takes it that senders know. */
const QUIET = 1000;

export interface ServerOptions {
  /** Model name in the protocol. */
  name: string;
  host: string;
  /** 0: any free one. */
  port: number;
  batching: Batching;
  maxBodyBytes: number;
}

export interface ModelServer {
  /** `http://host:port` */
  url: string;
  /** Serves `model` from now on, and says ready. */
  use(model: ServedModel): void;
  /**
   * Says not ready, takes what still comes until it has come to rest (at most half of `seconds`), then takes nothing more,
   * answers what is in progress and ends. What is unanswered after `seconds` is cut off.
   * @returns how many requests were cut off.
   */
  drain(seconds: number): Promise<number>;
}

/** @throws TrainerError CannotListen that names the address. */
export async function startServer(options: ServerOptions): Promise<ModelServer> {
  const { name, maxBodyBytes, batching } = options;
  const service: Service = {
    name,
    maxBodyBytes,
    metrics: createMetrics(name),
    stage: 'Loading',
    serving: undefined,
    inFlight: 0,
    lastArrival: Number.NEGATIVE_INFINITY,
  };
  const server = createServer(
    {
      headersTimeout: HEADERS_TIMEOUT,
      requestTimeout: REQUEST_TIMEOUT,
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT,
      connectionsCheckingInterval: TIMEOUT_CHECKS,
    },
    createApp(service),
  );
  server.maxConnections = MAX_CONNECTIONS;
  const { port } = await listen(server, options);
  return {
    url: `http://${options.host.includes(':') ? `[${options.host}]` : options.host}:${port}`,
    use(model) {
      const maxBatchSize = model.input.openBatch ? batching.maxBatchSize : 1;
      const limits = {
        maxBatchSize,
        maxDelay: batching.maxQueueDelayMicroseconds / 1000,
        maxQueued: QUEUED_BATCHES * maxBatchSize,
      };
      service.serving = { model, batcher: new Batcher(limits, model.run, service.metrics), maxBatchSize };
      service.stage = 'Ready';
    },
    drain: (seconds) => drain(server, service, seconds),
  };
}

async function listen(server: Server, { host, port }: ServerOptions): Promise<AddressInfo> {
  try {
    server.listen(port, host);
    await once(server, 'listening');
    return server.address() as AddressInfo;
  } catch (cause) {
    throw new TrainerError('CannotListen', `cannot listen on ${host}:${port}: ${(cause as Error).message}`, { cause });
  }
}

async function drain(server: Server, service: Service, seconds: number): Promise<number> {
  const deadline = performance.now() + seconds * 1000;
  service.stage = 'Leaving';
  // Endpoints are taken out of Services while pods are told to end, not before: requests come for a little longer.
  const leaving = performance.now();
  const latest = leaving + seconds * 500;
  for (;;) {
    const rest = Math.min(latest, Math.max(leaving, service.lastArrival) + QUIET) - performance.now();
    if (rest <= 0) break;
    await delay(rest);
  }
  const closed = once(server, 'close');
  // http's own close() also ends connections without a request, and so resets those whose request is just on its way. Only
  // the listening ends here; every answer from now on closes its connection, and what stays silent is ended below.
  NetServer.prototype.close.call(server);
  const silent = setInterval(() => server.closeIdleConnections(), QUIET);
  const expired = new AbortController();
  const left = await Promise.race([
    closed.then(() => 0),
    delay(Math.max(0, deadline - performance.now()), undefined, { signal: expired.signal }).then(
      () => service.inFlight,
    ),
  ]);
  expired.abort();
  clearInterval(silent);
  server.closeAllConnections();
  await closed;
  return left;
}
