/** Ports and networks on loopback that nothing else uses. */
import { randomInt } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** Below the range from which the kernel takes the ports of outgoing connections (from 32768), above the well-known ones. */
const FIRST = 20_000;
const LAST = 32_000;

/** Whether a server could listen on 127.0.0.1:`port` now. */
export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/**
 * Whether the port is free, or becomes so within a second: a process that was just killed is out of the process table before
 * the kernel closes its sockets.
 */
export async function becomesFree(port: number): Promise<boolean> {
  for (const deadline = performance.now() + 1000; performance.now() < deadline; await delay(20)) {
    if (await isFree(port)) return true;
  }
  return false;
}

/** `count` different free ports, none of them in `taken` (ports that others keep without listening now). */
export async function freePorts(count: number, taken: ReadonlySet<number> = new Set()): Promise<number[]> {
  const found = new Set<number>();
  for (let tries = 0; found.size < count; tries++) {
    if (tries > 1000) throw new Error(`no ${count} free ports on 127.0.0.1 between ${FIRST} and ${LAST}`);
    const port = randomInt(FIRST, LAST);
    if (!taken.has(port) && !found.has(port) && (await isFree(port))) found.add(port);
  }
  return [...found];
}

/** The first two bytes of the addresses of a cluster's pods and of its Services, as "127.70" and "127.71". */
export interface Networks {
  pods: string;
  services: string;
}

/** Pairs of networks from 127.64 up, 90 of them. */
const NETWORK_PAIRS = 90;

/** The n-th pair of networks. */
export function networksOf(n: number): Networks {
  return { pods: `127.${64 + 2 * n}`, services: `127.${65 + 2 * n}` };
}

/**
 * The first pair, counted on from `start`, that is not in `taken` and in which nobody listens (clusters of other users
 * are seen in that way alone).
 */
export async function freeNetworks(start: number, taken: readonly Networks[]): Promise<Networks> {
  const used = new Set([...taken.flatMap((n) => [n.pods, n.services]), ...(await listeningNetworks())]);
  for (let i = 0; i < NETWORK_PAIRS; i++) {
    const networks = networksOf((start + i) % NETWORK_PAIRS);
    if (!used.has(networks.pods) && !used.has(networks.services)) return networks;
  }
  throw new Error(`all ${NETWORK_PAIRS} pairs of pod and service networks below 127/8 are taken: purge a cluster`);
}

/** The first two bytes of all IPv4 addresses of this machine's TCP sockets, from Linux's table of them. */
async function listeningNetworks(): Promise<Set<string>> {
  const networks = new Set<string>();
  for (const line of (await readFile('/proc/net/tcp', 'utf8')).split('\n').slice(1)) {
    // "  0: 0100007F:1F90 ...": the address in little-endian hexadecimal.
    const address = /^\s*\d+: [0-9A-F]{4}([0-9A-F]{2})([0-9A-F]{2}):/.exec(line);
    if (address) networks.add(`${Number.parseInt(address[2]!, 16)}.${Number.parseInt(address[1]!, 16)}`);
  }
  return networks;
}
