/**
 * The collective operations as state machines over frames: what to send at the start, what has to come from the rank before, and
 * what to send on when it has. Each works on the pieces of its data, so that a piece travels on round the ring while the next
 * one is still under way. They know no socket.
 *
 * All-reduce is the ring algorithm (Patarasuk and Yuan 2009): W − 1 steps of reduce-scatter, then W − 1 of all-gather, each rank
 * sending 2 (W − 1) / W of the data. A chunk is always summed in the order of the ranks from its own on, so every rank gets the
 * same bits, each time.
 */
import { chunk, type Header, KIND, type Kind, type Payload, PIECE_BYTES, pieces } from './frames.ts';

/** What an operation has to do with its ring. */
export interface Seat {
  rank: number;
  world: number;
  /** Sends to the rank after this one; the bytes must not change until they have left or the operation is over. */
  send: (step: number, offset: number, bytes: Uint8Array) => void;
}

export interface Operation {
  kind: Kind;
  /** Sends what can be sent without having received anything. */
  start(): void;
  /** Where the payload of a frame belongs. @throws Error saying what is wrong with it */
  expect(header: Header): Payload;
  /** Whether all has been received. */
  complete(): boolean;
  /** The outcome for whoever asked. */
  result(): Uint8Array | Uint8Array[] | undefined;
}

const ELEMENT = Float32Array.BYTES_PER_ELEMENT;

export function allReduce(values: Float32Array, { rank, world, send }: Seat): Operation {
  const steps = 2 * (world - 1);
  const scratch = new Float32Array(PIECE_BYTES / ELEMENT);
  const bytesOf = (start: number, end: number) =>
    new Uint8Array(values.buffer, values.byteOffset + start * ELEMENT, (end - start) * ELEMENT);
  const sendPiece = (step: number, start: number, end: number) => send(step, start * ELEMENT, bytesOf(start, end));

  /** The pieces that the rank before sends, in their order. */
  function* incoming() {
    for (let step = 0; step < steps; step++) {
      const { start, end } = chunk(values.length, world, rank - 1 - step);
      for (const piece of pieces(start, end, ELEMENT)) yield { step, ...piece };
    }
  }
  const order = incoming();
  let next = order.next();

  return {
    kind: KIND.REDUCE,
    start() {
      const own = chunk(values.length, world, rank);
      for (const { start, end } of pieces(own.start, own.end, ELEMENT)) sendPiece(0, start, end);
    },
    expect(header) {
      if (next.done) throw new Error('sent more of a sum than there is');
      const { step, start, end } = next.value;
      const length = (end - start) * ELEMENT;
      if (header.step !== step || header.offset !== start * ELEMENT || header.length !== length) {
        throw new Error(
          `sent ${header.length} bytes for step ${header.step} at ${header.offset}, where ${length} for step ${step} at ${start * ELEMENT} are due`,
        );
      }
      const adds = step < world - 1;
      return {
        target: adds ? new Uint8Array(scratch.buffer, 0, length) : bytesOf(start, end),
        done() {
          if (adds) for (let i = start, j = 0; i < end; i++, j++) values[i]! += scratch[j]!;
          if (step + 1 < steps) sendPiece(step + 1, start, end);
          next = order.next();
        },
      };
    },
    complete: () => next.done === true,
    result: () => undefined,
  };
}

/** Every rank's bytes to every rank; of none each, a barrier. */
export function allGather(own: Uint8Array, most: number, { rank, world, send }: Seat): Operation {
  const gathered: Uint8Array[] = [];
  gathered[rank] = own;
  let step = 0;
  return {
    kind: KIND.GATHER,
    start: () => send(0, 0, own),
    expect(header) {
      if (step >= world - 1) throw new Error('sent more than each rank’s part');
      if (header.step !== step || header.offset !== 0 || header.length > most) {
        throw new Error(
          `sent ${header.length} bytes of step ${header.step}, where at most ${most} of step ${step} are due`,
        );
      }
      const target = new Uint8Array(header.length);
      return {
        target,
        done() {
          gathered[(((rank - 1 - step) % world) + world) % world] = target;
          step++;
          if (step < world - 1) send(step, 0, target);
        },
      };
    },
    complete: () => step >= world - 1,
    result: () => gathered,
  };
}

/** Most bytes of a broadcast: more than any state, less than what a false length could make us allocate in vain. */
const MAX_BROADCAST_BYTES = 2 ** 33;

/** The root's bytes to every rank: their number first (step 0), then the bytes (step 1), passed on to all but the root. */
export function broadcast(bytes: Uint8Array | undefined, root: number, { rank, world, send }: Seat): Operation {
  let content = rank === root ? bytes : undefined;
  let received = rank === root ? bytes!.length : 0;
  const passesOn = (rank + 1) % world !== root;
  return {
    kind: KIND.BROADCAST,
    start() {
      if (rank !== root) return;
      const size = Buffer.alloc(8);
      size.writeDoubleLE(content!.length);
      send(0, 0, size);
      for (const { start, end } of pieces(0, content!.length)) send(1, start, content!.subarray(start, end));
    },
    expect(header) {
      if (rank === root) throw new Error('sent a broadcast to its root');
      if (!content) {
        if (header.step !== 0 || header.length !== 8) throw new Error('sent a broadcast without its size');
        const size = Buffer.alloc(8);
        return {
          target: size,
          done() {
            const length = size.readDoubleLE();
            if (!Number.isInteger(length) || length < 0 || length > MAX_BROADCAST_BYTES) {
              throw new Error(`announced a broadcast of ${length} bytes`);
            }
            content = new Uint8Array(length);
            if (passesOn) send(0, 0, size);
          },
        };
      }
      const length = Math.min(PIECE_BYTES, content.length - received);
      if (header.step !== 1 || header.offset !== received || header.length !== length || length === 0) {
        throw new Error(
          `sent ${header.length} bytes at ${header.offset} of a broadcast, where ${length} at ${received} are due`,
        );
      }
      const target = content.subarray(received, received + length);
      return {
        target,
        done() {
          if (passesOn) send(1, received, target);
          received += length;
        },
      };
    },
    complete: () => content !== undefined && received === content.length,
    result: () => content,
  };
}
