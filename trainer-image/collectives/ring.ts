/** A ring of several members, as the thread that computes sees it: operations go to the ring's own thread, whose reports come back. */
import { Worker } from 'node:worker_threads';
import { RING_PORT } from '../contract.ts';
import {
  allocate,
  type Collective,
  checkGathered,
  checkPart,
  checkRoot,
  MAX_GATHERED_BYTES,
  RingBroken,
  type RingOptions,
} from './index.ts';
import { CONTROL, NOBODY, type Order, type Report, type ThreadData } from './orders.ts';

/** ms for a thread to say goodbye. */
const FAREWELL = 2000;

type Result = Uint8Array | Uint8Array[] | undefined;
interface Pending {
  resolve: (result: Result) => void;
  reject: (error: RingBroken) => void;
}

/** @throws RingBroken if not all have met in time */
export async function openRingOfMany(options: RingOptions): Promise<Collective> {
  const { generation, rank, members, secret } = options;
  const world = members.length;
  const control = new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT));
  const workerData: ThreadData = {
    generation,
    rank,
    members,
    secret,
    port: options.port ?? RING_PORT,
    connectSeconds: options.connectSeconds ?? 30,
    silenceSeconds: options.silenceSeconds ?? 10,
    mostGathered: MAX_GATHERED_BYTES,
    control,
  };
  const worker = new Worker(new URL('./thread.ts', import.meta.url), { workerData });
  const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  const pending = new Map<number, Pending>();
  let broken: RingBroken | undefined;
  let closed = false;
  /** Operation 1 is the meeting. */
  let issued = 1;
  let lastReduce: Promise<unknown> = Promise.resolve();

  const goneError = () => new RingBroken(`the ring of generation ${generation} is closed`);
  const breakUp = (error: RingBroken) => {
    broken ??= error;
    for (const { reject } of pending.values()) reject(broken);
    pending.clear();
  };
  const expect = (operation: number): Promise<Result> => {
    const error = broken ?? (closed ? goneError() : undefined);
    if (error) return Promise.reject(error);
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    pending.set(operation, { resolve, reject });
    promise.catch(() => {}); // of several at once only the last may be waited for
    return promise;
  };
  const send = (order: Order) => worker.postMessage(order);
  const issue = (order: Order): Promise<Result> => {
    const outcome = expect(++issued);
    if (!broken && !closed) send(order);
    return outcome;
  };

  worker.on('message', (message: Report) => {
    if (message.type === 'done') {
      pending.get(message.operation)?.resolve(message.result);
      pending.delete(message.operation);
    } else if (message.type === 'broken') {
      breakUp(new RingBroken(message.message, message.rank === undefined ? undefined : members[message.rank]));
    }
  });
  worker.on('error', (error) =>
    breakUp(new RingBroken(`the ring’s thread failed: ${error.message}`, undefined, { cause: error })),
  );
  // Not before the thread has ended: until then it may send from the memory of what is pending.
  exited.then(() => breakUp(goneError()));

  const collective: Collective = {
    rank,
    world,
    generation,
    allocate,
    reduce(values, start, end) {
      checkPart(values, start, end);
      if (start === end) return;
      lastReduce = issue({ type: 'reduce', values: values.subarray(start, end) });
      lastReduce.catch(() => {});
    },
    async reduced() {
      await lastReduce;
    },
    reduceNow(values) {
      checkPart(values, 0, values.length);
      if (broken) throw broken;
      if (closed) throw goneError();
      if (values.length === 0) return;
      issue({ type: 'reduce', values });
      for (;;) {
        const done = Atomics.load(control, CONTROL.DONE);
        if (done >= issued) return;
        const broke = Atomics.load(control, CONTROL.BROKEN);
        if (broke !== 0) {
          const peer = broke === NOBODY ? undefined : members[broke - 1];
          throw new RingBroken(`the ring broke${peer ? ` at rank ${peer.rank} (pod ${peer.pod})` : ''}`, peer);
        }
        Atomics.wait(control, CONTROL.DONE, done, 100);
      }
    },
    async broadcast(bytes, root) {
      checkRoot(bytes, root, rank, world);
      const result = (await issue({ type: 'broadcast', bytes: rank === root ? bytes : undefined, root })) as Uint8Array;
      return rank === root ? bytes! : result;
    },
    async allGather(bytes) {
      checkGathered(bytes);
      return (await issue({ type: 'gather', bytes })) as Uint8Array[];
    },
    async barrier() {
      await issue({ type: 'gather', bytes: new Uint8Array(0) });
    },
    async close() {
      if (!closed) {
        closed = true;
        send({ type: 'close' });
      }
      const timer = setTimeout(() => worker.terminate(), FAREWELL);
      await exited;
      clearTimeout(timer);
    },
  };
  try {
    await expect(1);
    return collective;
  } catch (error) {
    await collective.close();
    throw error;
  }
}
