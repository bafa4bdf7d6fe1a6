/**
 * The thread in which a ring lives: meets the neighbours, carries out operations one after the other, and answers heartbeats
 * whatever the thread that computes is doing. It is started by `ring.ts` and ends with its ring.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import {
  createFrameReader,
  encodeBare,
  encodeHeader,
  type FrameReader,
  type Header,
  isBare,
  KIND,
  type Payload,
} from './frames.ts';
import { greet, welcome } from './handshake.ts';
import type { RingMember } from './index.ts';
import { allGather, allReduce, broadcast, type Operation, type Seat } from './operations.ts';
import { CONTROL, NOBODY, type Order, type Report, type ThreadData } from './orders.ts';

/** Connections of strangers at once. */
const MAX_STRANGERS = 32;
/** For a peer's word on whose fault it is to come, after a connection was closed, in ms. */
const HEARSAY = 50;
/** For a last word to reach a peer, in ms. */
const LAST_WORDS = 500;
/** Between two tries to reach a peer or to listen, in ms. */
const RETRY = 50;

const port = parentPort!;
const { generation, rank, members, secret, mostGathered, control, ...settings } = workerData as ThreadData;
const world = members.length;
const before = members[(rank - 1 + world) % world]!;
const after = members[(rank + 1) % world]!;
const silence = settings.silenceSeconds * 1000;

let over = false;
let server: Server | undefined;
const strangers = new Set<Socket>();
/** Receives from the rank before; sends to the rank after. */
let inlet: Socket | undefined;
let outlet: Socket | undefined;
const heard = new Map<Socket, number>();
/** The last operation that a neighbour that has left completed. */
const left = new Map<RingMember, number>();

function report(message: Report): void {
  port.postMessage(message);
}

function end(): void {
  over = true;
  clearInterval(beat);
  clearTimeout(meeting);
  server?.close();
  for (const socket of strangers) socket.destroy();
  port.close();
}

/** Ends the ring for everybody: the neighbours are told whose fault it is, and pass it on. */
function breakUp(message: string, member?: RingMember): void {
  if (over) return;
  report({ type: 'broken', message, rank: member?.rank });
  Atomics.store(control, CONTROL.BROKEN, member ? member.rank + 1 : NOBODY);
  Atomics.notify(control, CONTROL.DONE);
  end();
  leave(member && encodeBare(KIND.BROKEN, { step: member.rank }));
}

/** Closes the connections with a last word. */
function leave(word: Buffer | undefined): void {
  // What is still to be sent lies in memory that its owner may now change: rather is the frame cut short, which tells the peer
  // as well.
  if (unsent > 0 || !word) outlet?.destroy();
  else outlet?.end(word);
  if (word) inlet?.end(word);
  else inlet?.destroy();
  inlet?.resume();
  setTimeout(() => {
    inlet?.destroy();
    outlet?.destroy();
  }, LAST_WORDS).unref();
}

const named = ({ rank, pod }: RingMember) => `rank ${rank} (pod ${pod})`;

// ---------------------------------------------------------------------------------------------- operations

const orders: Exclude<Order, { type: 'close' }>[] = [];
let number = 0;
let current: Operation | undefined;
/** Writes of the present operation that have not left yet. */
let unsent = 0;

const seat: Seat = {
  rank,
  world,
  send(step, offset, bytes) {
    const header = encodeHeader({ kind: current!.kind, operation: number, step, offset, length: bytes.length });
    unsent++;
    outlet!.cork();
    outlet!.write(header);
    outlet!.write(bytes, () => {
      unsent--;
      settle();
    });
    outlet!.uncork();
  },
};

function next(): void {
  const order = current || over || !outlet || !inlet ? undefined : orders.shift();
  if (!order) return;
  number++;
  for (const [member, last] of left) {
    if (last < number) {
      breakUp(`${named(member)} has left the ring`, member);
      return;
    }
  }
  if (order.type === 'reduce') current = allReduce(order.values, seat);
  else if (order.type === 'gather') current = allGather(order.bytes, mostGathered, seat);
  else current = broadcast(order.bytes, order.root, seat);
  current.start();
  settle();
  resume();
}

/** Reports the present operation when all has come and all has left: only then may its memory be touched. */
function settle(): void {
  if (over || !current?.complete() || unsent > 0) return;
  const result = current.result();
  current = undefined;
  Atomics.store(control, CONTROL.DONE, number);
  Atomics.notify(control, CONTROL.DONE);
  report({ type: 'done', operation: number, result });
  next();
}

// ---------------------------------------------------------------------------------------------- frames

/** Bytes from the rank before that wait for an operation which is not begun here. */
let waiting: { reader: FrameReader; bytes: Buffer } | undefined;

function resume(): void {
  if (!waiting || over) return;
  const { reader, bytes } = waiting;
  waiting = undefined;
  heard.set(inlet!, performance.now());
  inlet!.resume();
  take(reader, bytes, before);
}

function take(reader: FrameReader, bytes: Buffer, from: RingMember): void {
  if (over) return;
  try {
    const rest = reader.take(bytes);
    if (rest) {
      waiting = { reader, bytes: rest };
      inlet!.pause();
    }
  } catch (error) {
    breakUp(`${named(from)} ${(error as Error).message}`, from);
  }
}

const NOTHING = new Uint8Array(0);

/** Frames of the rank before. */
function accept(header: Header): Payload | undefined {
  const common = acceptCommon(header, before);
  if (common) return common;
  if (header.operation > number + 1 || header.operation < number) {
    throw new Error(`sent a frame of operation ${header.operation} during operation ${number}`);
  }
  if (header.operation !== number || !current) return undefined;
  if (header.kind !== current.kind)
    throw new Error(`is at another operation than this rank: kind ${header.kind}, not ${current.kind}`);
  const { target, done } = current.expect(header);
  return {
    target,
    done() {
      done();
      settle();
    },
  };
}

function acceptCommon(header: Header, from: RingMember): Payload | undefined {
  if (header.kind === KIND.GOODBYE) left.set(from, header.operation);
  if (header.kind === KIND.BROKEN) {
    const culprit = members[header.step] ?? from;
    breakUp(`the ring broke at ${named(culprit)}, as ${named(from)} says`, culprit);
  }
  return isBare(header.kind) ? { target: NOTHING, done: () => {} } : undefined;
}

function attend(socket: Socket, member: RingMember, reader: FrameReader): void {
  heard.set(socket, performance.now());
  socket.setNoDelay(true);
  socket.on('data', (bytes: Buffer) => {
    heard.set(socket, performance.now());
    take(reader, bytes, member);
  });
  const gone = (why: string) => {
    // One that has completed what we are still at is free to go; what it sent before has come.
    const last = left.get(member);
    const needed = current || waiting ? number : number + 1;
    if (last !== undefined && (last >= needed || (!current && orders.length === 0))) return;
    // It may have closed because of another, whose name then comes from the other side.
    setTimeout(() => breakUp(`the connection to ${named(member)} ${why}`, member), HEARSAY).unref();
  };
  socket.on('error', (error) => gone(`was lost: ${error.message}`));
  socket.on('close', () => gone('was closed'));
}

let beatAt = performance.now();

function beatNow(): void {
  const frame = encodeBare(KIND.HEARTBEAT);
  const now = performance.now();
  // A process that was held up itself has heard nobody: that is nobody's fault but its own.
  if (now - beatAt > silence / 2) for (const socket of heard.keys()) heard.set(socket, now);
  beatAt = now;
  for (const [socket, member] of [
    [inlet, before],
    [outlet, after],
  ] as const) {
    if (!socket || left.has(member)) continue;
    // While we do not read, nothing can be heard.
    const since = socket === inlet && waiting ? 0 : now - heard.get(socket)!;
    if (since > silence) {
      breakUp(`nothing was heard of ${named(member)} for ${settings.silenceSeconds} s`, member);
      return;
    }
    if (socket.writableLength < 1024) socket.write(frame);
  }
}
const beat = setInterval(beatNow, silence / 4);

// ---------------------------------------------------------------------------------------------- meeting

const meeting = setTimeout(() => {
  const missing = inlet ? after : before;
  const what = inlet ? 'did not come' : `could not be reached at ${missing.address}: ${lastTry}`;
  breakUp(`${named(missing)} ${what} within ${settings.connectSeconds} s`, missing);
}, settings.connectSeconds * 1000);
let lastTry = 'no answer';

function met(): void {
  if (over || !inlet || !outlet) return;
  clearTimeout(meeting);
  server?.close();
  // The first operation of every ring: when it is done, all have met.
  orders.unshift({ type: 'gather', bytes: NOTHING });
  next();
}

function listen(): void {
  if (over) return;
  server = createServer({ noDelay: true }, (socket) => {
    if (outlet) {
      socket.destroy();
      return;
    }
    // Who says nothing keeps no place from who may be the rightful one.
    const [oldest] = strangers;
    if (strangers.size >= MAX_STRANGERS) oldest!.destroy();
    strangers.add(socket);
    socket.once('close', () => strangers.delete(socket));
    socket.on('error', () => {});
    welcome(socket, { generation, secret, dialer: after.rank, listener: rank }).then(
      () => {
        strangers.delete(socket);
        if (outlet || over) {
          socket.destroy();
          return;
        }
        outlet = socket;
        const reader = createFrameReader((header) => {
          const payload = acceptCommon(header, after);
          if (!payload) throw new Error('sent data the wrong way round the ring');
          return payload;
        });
        attend(socket, after, reader);
        met();
      },
      () => {
        strangers.delete(socket);
        socket.destroy();
      },
    );
  });
  server.on('error', (error) => {
    lastTry = error.message;
    server?.close();
    if (!outlet) setTimeout(listen, RETRY); // the ring before may not have left the port yet
  });
  server.listen(settings.port, members[rank]!.address);
}

function dial(): void {
  if (over) return;
  const again = (error: Error) => {
    lastTry = error.message;
    socket.destroy();
    if (!over) setTimeout(dial, RETRY);
  };
  const socket = createConnection({ host: before.address, port: settings.port, noDelay: true });
  socket.once('error', again);
  socket.once('connect', () => {
    socket.off('error', again);
    socket.on('error', () => {});
    greet(socket, { generation, secret, dialer: rank, listener: before.rank }).then(() => {
      if (over) {
        socket.destroy();
        return;
      }
      inlet = socket;
      attend(socket, before, createFrameReader(accept));
      met();
    }, again);
  });
}

port.on('message', (order: Order) => {
  if (order.type !== 'close') {
    orders.push(order);
    next();
    return;
  }
  if (over) return;
  const goodbye = encodeBare(KIND.GOODBYE, { operation: current ? number - 1 : number });
  end();
  leave(goodbye);
});

// Whoever blocks on the ring is told, and so are the neighbours.
process.on('uncaughtException', (error) => breakUp(`the ring’s thread failed: ${error.stack}`));

listen();
dial();
