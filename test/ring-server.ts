/**
 * An intake for tests of several workers without a cluster: forms rings as the operator does, once every index has asked, and keeps
 * what each worker reports. A worker is known by its bearer token, which here is its pod's name.
 */
import { randomBytes } from 'node:crypto';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { Progress, type Ring, RingRequest } from '../trainer-image/contract.ts';

/** Shorter than the operator's, so that asking again is seen in tests too. */
const POLL_SECONDS = 5;

export interface PodIdentity {
  pod: string;
  /** Job completion index: its rank. */
  index: number;
  address: string;
}

export interface RingServer {
  url: string;
  /** The newest ring's generation; 0 before the first. */
  readonly generation: number;
  /** What a pod reported, oldest first. */
  progress(pod: string): Progress[];
  /** From now on the pod is its index's; whoever was before is gone. */
  admit(pod: PodIdentity): void;
  /** Until `recover`, every request is answered 503. */
  fail(): void;
  recover(): void;
  close(): void;
}

interface Join {
  pod: string;
  response: ServerResponse;
}

export async function startRingServer(replicas: number): Promise<RingServer> {
  const pods = new Map<number, PodIdentity>();
  const reports = new Map<string, Progress[]>();
  let joins: Join[] = [];
  let ring: { generation: number; members: Ring['members']; secret: string } | undefined;
  let failing = false;

  const serve = (pod: string, response: ServerResponse) => {
    const rank = ring!.members.find((member) => member.pod === pod)!.rank;
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ ...ring!, rank }));
  };

  const form = () => {
    const members = [...pods.values()].sort((a, b) => a.index - b.index);
    if (members.length < replicas || !members.every(({ pod }) => joins.some((join) => join.pod === pod))) return;
    ring = {
      generation: (ring?.generation ?? 0) + 1,
      members: members.map(({ pod, index, address }) => ({ rank: index, pod, address })),
      secret: randomBytes(32).toString('base64'),
    };
    for (const { pod, response } of joins.splice(0)) serve(pod, response);
  };

  const server = createServer(async (request, response) => {
    const pod = request.headers.authorization?.replace('Bearer ', '') ?? '';
    const message = JSON.parse(await text(request));
    if (failing) return void response.writeHead(503).end();
    if (![...pods.values()].some((known) => known.pod === pod)) return void response.writeHead(404).end();
    if (request.url === '/v1/progress') {
      reports.set(pod, [...(reports.get(pod) ?? []), Progress.parse(message)]);
      return void response.writeHead(204).end();
    }
    const { after } = RingRequest.parse(message);
    if (ring && ring.generation > after && ring.members.some((member) => member.pod === pod)) {
      return serve(pod, response);
    }
    const join = { pod, response };
    joins.push(join);
    const leave = () => {
      joins = joins.filter((other) => other !== join);
    };
    const timer = setTimeout(() => {
      leave();
      response.writeHead(204).end();
    }, POLL_SECONDS * 1000);
    response.on('close', () => {
      clearTimeout(timer);
      leave();
    });
    form();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get generation() {
      return ring?.generation ?? 0;
    },
    progress: (pod) => reports.get(pod) ?? [],
    admit(pod) {
      pods.set(pod.index, pod);
    },
    fail() {
      failing = true;
      for (const { response } of joins.splice(0)) response.writeHead(503).end();
    },
    recover() {
      failing = false;
    },
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
