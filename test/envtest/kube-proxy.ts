/**
 * A proxy before an API server that breaks what passes through it: plain HTTP on this side, the given access on the other. It
 * decides nothing by itself; a test says which request fails, and how.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { KubeConfig } from '@kubernetes/client-node';
import type { Access } from '../cluster/requests.ts';

export type Fault =
  /** The connection breaks before the server hears of the request. */
  | { type: 'Refuse' }
  /** The server hears nothing, and the client no answer, until it gives up. */
  | { type: 'Hold' }
  /** The server does what is asked; its answer is lost. */
  | { type: 'LoseAnswer' }
  /** The answer comes so many ms later. */
  | { type: 'Delay'; ms: number }
  /** A watch begins well, and its first event is this error, as the server says what it found out too late. */
  | { type: 'ErrorEvent'; code: number; reason: string }
  /** The proxy answers with this code itself. */
  | { type: 'Answer'; code: number; reason: string; retryAfterSeconds?: number };

export interface FaultProxy extends AsyncDisposable {
  /** For a client that goes through the proxy. */
  config: KubeConfig;
  /** Asked for each request. */
  fault: (request: { method: string; url: string; isWatch: boolean }) => Fault | undefined;
  /** Requests so far. */
  requests: number;
  /** Requests that the server did not answer, or not to the end, by itself. */
  unanswered: number;
  /** How long each watch that was asked for and has ended was open, in ms; 0 for one that never was. */
  watched: number[];
  /** Watches open now. */
  watches(): number;
  /** Breaks the open watches that `which` chooses; says how many. */
  cut(which?: () => boolean): number;
}

export async function startFaultProxy(upstream: Access): Promise<FaultProxy> {
  const open = new Set<ServerResponse>();
  const agent = new Agent({
    keepAlive: true,
    ca: upstream.ca,
    cert: upstream.certificate,
    key: upstream.privateKey,
  });

  const server = createServer((request, response) => {
    proxy.requests += 1;
    const url = request.url ?? '';
    const isWatch = url.includes('watch=true');
    const asked = performance.now();
    if (isWatch) {
      response.on('close', () => proxy.watched.push(response.headersSent ? performance.now() - asked : 0));
    }
    const fault = proxy.fault({ method: request.method ?? '', url, isWatch });
    if (fault?.type === 'Hold') request.resume();
    else if (fault?.type === 'Refuse') response.destroy();
    else if (fault?.type === 'ErrorEvent') {
      const { code, reason } = fault;
      const object = { kind: 'Status', apiVersion: 'v1', code, reason, message: 'a fault of the test' };
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(`${JSON.stringify({ type: 'ERROR', object })}\n`);
    } else if (fault?.type === 'Answer') {
      const { code, reason, retryAfterSeconds } = fault;
      response.writeHead(code, {
        'content-type': 'application/json',
        ...(retryAfterSeconds === undefined ? {} : { 'retry-after': String(retryAfterSeconds) }),
      });
      response.end(JSON.stringify({ kind: 'Status', apiVersion: 'v1', code, reason, message: 'a fault of the test' }));
    } else pass(request, response, isWatch, fault);
  });

  function pass(request: IncomingMessage, response: ServerResponse, isWatch: boolean, fault: Fault | undefined): void {
    const { host, ...headers } = request.headers;
    const outgoing = httpsRequest(
      new URL(request.url ?? '', upstream.server),
      { agent, method: request.method, headers },
      (incoming) => {
        if (fault?.type === 'LoseAnswer') {
          incoming.resume();
          response.destroy();
          return;
        }
        const answer = () => {
          response.writeHead(incoming.statusCode ?? 502, incoming.headers);
          response.flushHeaders();
          incoming.on('error', () => {
            if (!response.destroyed) proxy.unanswered += 1;
            response.destroy();
          });
          incoming.pipe(response);
        };
        if (fault?.type === 'Delay') setTimeout(answer, fault.ms);
        else answer();
      },
    );
    if (isWatch) open.add(response);
    response.on('close', () => {
      open.delete(response);
      outgoing.destroy();
    });
    outgoing.on('error', () => {
      if (!response.destroyed && !response.headersSent) proxy.unanswered += 1;
      response.destroy();
    });
    request.pipe(outgoing);
  }

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const config = new KubeConfig();
  config.loadFromClusterAndUser(
    { name: 'proxy', server: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, skipTLSVerify: true },
    { name: 'proxy' },
  );
  const proxy: FaultProxy = {
    config,
    fault: () => undefined,
    requests: 0,
    unanswered: 0,
    watched: [],
    watches: () => open.size,
    cut(which = () => true) {
      const chosen = [...open].filter(which);
      for (const response of chosen) response.destroy();
      return chosen.length;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      agent.destroy();
      await once(server, 'close');
    },
  };
  return proxy;
}

/** Numbers in [0, 1) that are the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
