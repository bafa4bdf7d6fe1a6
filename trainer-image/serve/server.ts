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
/** The same for the connections that are left once its port is closed. */
const QUIET_CONNECTIONS = 250;

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
   * Says not ready, takes what still comes until that has come to rest (at most half of `seconds`), then closes its port,
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
  const started = performance.now();
  const deadline = started + seconds * 1000;
  service.stage = 'Leaving';
  // Endpoints are taken out of Services while pods are told to end, not before: requests come for a little longer.
  await untilQuiet(service, QUIET, started + seconds * 500);

  const closed = once(server, 'close');
  // Only the port: http's own close also ends connections whose request is still on its way through the socket.
  NetServer.prototype.close.call(server);
  await Promise.race([closed, untilQuiet(service, QUIET_CONNECTIONS, deadline)]);
  server.closeIdleConnections();
  const left = await within(deadline, closed, service);
  server.closeAllConnections();
  await closed;
  return left;
}

/** Waits until no inference request has come for `quiet` milliseconds, and no longer than until `latest`. */
async function untilQuiet(service: Service, quiet: number, latest: number): Promise<void> {
  const started = performance.now();
  for (;;) {
    const rest = Math.min(latest, Math.max(started, service.lastArrival) + quiet) - performance.now();
    if (rest <= 0) return;
    await delay(rest);
  }
}

/** Waits until all connections are closed, or until the deadline: then it says how many requests are unanswered. */
async function within(deadline: number, closed: Promise<unknown>, service: Service): Promise<number> {
  const answered = new AbortController();
  const { signal } = answered;
  const expired = delay(Math.max(0, deadline - performance.now()), undefined, { signal }).then(() => service.inFlight);
  try {
    return await Promise.race([closed.then(() => 0), expired]);
  } finally {
    answered.abort();
  }
}
