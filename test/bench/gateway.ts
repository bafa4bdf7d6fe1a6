/**
 * What the gateway costs: requests per second through it against those straight to a predictor that does nothing, from the same
 * 16 clients, in turns within one run. The predictor, the gateway and the clients are processes of their own.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Pool } from 'undici';
import { openBackend } from '../../operator/gateway/backends.ts';
import { gatewayMetrics } from '../../operator/gateway/metrics.ts';
import { startGateway } from '../../operator/gateway/server.ts';

const CLIENTS = 16;
/** Bytes of a small picture. */
const BODY = Buffer.alloc(3000, 1);
const ROUNDS = 12;
const ROUND_MILLISECONDS = 1500;
const ANSWER = JSON.stringify({ model: 'a', predictions: [{ label: 'bag', index: 1, probability: 1 }] });

/** Reads each request, answers it, and does nothing else. */
async function predictor(): Promise<string> {
  const server = createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(ANSWER) });
      response.end(ANSWER);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function gateway(origin: string): Promise<string> {
  const revisions = [{ name: 'a-1', weight: 100, backends: [openBackend({ uid: 'a', origin }, 'a-1')] }];
  const route = { namespace: 'n', name: 'a', maxBodyBytes: 2 ** 20, timeoutMilliseconds: 30_000, revisions };
  const table = { find: (namespace: string, name: string) => (namespace === 'n' && name === 'a' ? route : undefined) };
  const started = { table, metrics: gatewayMetrics(), address: '127.0.0.1', port: 0, ready: () => true };
  return `http://127.0.0.1:${(await startGateway(started)).port}`;
}

/** Starts this file as a process that listens, and returns where. */
async function listening(role: string, ...args: string[]) {
  const child = fork(import.meta.filename, [role, ...args]);
  const [origin] = (await once(child, 'message')) as [string];
  return { origin, child };
}

/** Microseconds of CPU that the process has used. */
async function cpu(child: ChildProcess): Promise<number> {
  child.send('cpu');
  const [{ user, system }] = (await once(child, 'message')) as [NodeJS.CpuUsage];
  return user + system;
}

/** Requests answered 200 in one second. Throws on any other answer. */
async function rate(pool: Pool, path: string): Promise<number> {
  const started = performance.now();
  let answered = 0;
  const client = async () => {
    while (performance.now() - started < ROUND_MILLISECONDS) {
      const { statusCode, body } = await pool.request({
        method: 'POST',
        path,
        headers: { 'content-type': 'image/png' },
        body: BODY,
      });
      const text = await body.text();
      if (statusCode !== 200 || text !== ANSWER) throw new Error(`${statusCode}: ${text}`);
      answered += 1;
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  return (answered / (performance.now() - started)) * 1000;
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!;

/** @returns true: there is no bound that it could fail */
export async function benchGateway(): Promise<boolean> {
  const behind = await listening('predictor');
  const before = await listening('gateway', behind.origin);
  const direct = new Pool(behind.origin, { connections: CLIENTS });
  const through = new Pool(before.origin, { connections: CLIENTS });
  try {
    const rates: { direct: number; through: number; cpu: number }[] = [];
    // The first round warms up.
    for (let round = 0; round <= ROUNDS; round++) {
      const straight = await rate(direct, '/v1/models/a:classify');
      const used = await cpu(before.child);
      const gone = await rate(through, '/v1/namespaces/n/inferenceservices/a:classify');
      const each = (await cpu(before.child)) - used;
      if (round > 0) {
        const seconds = ROUND_MILLISECONDS / 1000;
        rates.push({ direct: straight, through: gone, cpu: each / (gone * seconds) });
      }
    }
    const of = (name: 'direct' | 'through' | 'cpu') => Math.round(median(rates.map((pair) => pair[name])));
    const ratio = median(rates.map((pair) => pair.through / pair.direct));
    console.log(
      `requests/s with ${CLIENTS} clients and bodies of ${BODY.length} bytes, medians of ${ROUNDS} rounds in turns: ` +
        `${of('direct')} direct, ${of('through')} through the gateway, ratio ${ratio.toFixed(3)}; ` +
        `the gateway used ${of('cpu')} µs of CPU a request`,
    );
    return true;
  } finally {
    await Promise.all([direct.close(), through.close()]);
    before.child.kill();
    behind.child.kill();
  }
}

const [role, ...args] = process.argv.slice(2);
if (process.send && (role === 'predictor' || role === 'gateway')) {
  process.send(role === 'gateway' ? await gateway(args[0]!) : await predictor());
  process.on('message', () => process.send!(process.cpuUsage()));
}
