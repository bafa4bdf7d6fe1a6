/**
 * Collective operations of workers that train together: all-reduce, broadcast, all-gather and barrier over TCP. The ranks form
 * a ring: each receives from the one before it and sends to the one after it.
 *
 * All ranks must make the same calls in the same order. A ring lives until the first fault; then every rank's pending and
 * later operations end with `RingBroken`, and what goes on is another ring, of the next generation.
 */

import { openRingOfMany } from './ring.ts';

export interface RingMember {
  rank: number;
  /** Name of the pod, for messages. */
  pod: string;
  /** IP address at which the member listens. */
  address: string;
}

export interface RingOptions {
  /** Peers of another generation are refused. */
  generation: number;
  /** Own rank: an index of `members`. */
  rank: number;
  /** All, by rank. */
  members: readonly RingMember[];
  /** Of this generation alone; peers prove to each other that they know it. */
  secret: Uint8Array;
  /** Port at which every member listens, at its own address. Default: `RING_PORT`. */
  port?: number;
  /** Time within which all must have met. Default: 30 s. */
  connectSeconds?: number;
  /** A peer of which nothing is heard for so long is dropped; each says something four times as often. Default: 10 s. */
  silenceSeconds?: number;
}

/** A peer is gone, silent, or said something false. No result of an operation that ends so may be used. */
export class RingBroken extends Error {
  override name = 'RingBroken';
  /** Whose fault it is, where that is known. */
  readonly peer: RingMember | undefined;

  constructor(message: string, peer?: RingMember, options?: ErrorOptions) {
    super(message, options);
    this.peer = peer;
  }
}

/** Most bytes that a rank may give to `allGather`. */
export const MAX_GATHERED_BYTES = 64 * 1024;

export interface Collective {
  readonly rank: number;
  /** How many ranks there are. */
  readonly world: number;
  readonly generation: number;
  /** `length` zeros in shared memory: only on such arrays, or parts of them, can be reduced. Lives as long as it is referenced. */
  allocate(length: number): Float32Array<SharedArrayBuffer>;
  /**
   * Begins to sum `values[start, end)` over all ranks, in place. Returns at once; until `reduced` resolves, that part must not be
   * touched. The order of additions depends on the world size, `end - start` and the index alone, and every rank gets the same bits.
   * On a broken ring it does nothing, and `reduced` rejects.
   *
   * @throws TypeError if `values` is not of `allocate`; RangeError if the part is not within it
   */
  reduce(values: Float32Array, start: number, end: number): void;
  /**
   * Resolves when all that was begun is summed.
   * @throws RingBroken; parts of sums may then have been written
   */
  reduced(): Promise<void>;
  /**
   * `reduce` of the whole and `reduced`, but blocks the thread: for a sum in the middle of a forward pass.
   * @throws as those
   */
  reduceNow(values: Float32Array): void;
  /**
   * Every rank gets what `root` gives; any size. At the root the result is its own `bytes`.
   * @param bytes at the root only
   * @throws RingBroken
   */
  broadcast(bytes: Uint8Array | undefined, root: number): Promise<Uint8Array>;
  /**
   * Every rank gets what each gives, by rank; lengths may differ.
   * @throws RingBroken; RangeError for more than `MAX_GATHERED_BYTES`
   */
  allGather(bytes: Uint8Array): Promise<Uint8Array[]>;
  /**
   * Resolves once all ranks have called it.
   * @throws RingBroken
   */
  barrier(): Promise<void>;
  /** Leaves the ring: pending operations, here and at peers, end with `RingBroken`. Peers may still complete what is complete here. */
  close(): Promise<void>;
}

/**
 * Resolves once all members have met. One member alone needs no thread and no socket.
 * @throws RingBroken if they have not within `connectSeconds`
 */
export async function openRing(options: RingOptions): Promise<Collective> {
  const { rank, members, secret } = options;
  if (!members[rank] || members.some((member, index) => member.rank !== index)) {
    throw new RangeError(
      `rank ${rank} of ${members.length}: members must be listed by rank, and rank must be one of theirs`,
    );
  }
  if (secret.length === 0) throw new RangeError(`the secret of generation ${options.generation} is empty`);
  return members.length > 1 ? openRingOfMany(options) : alone(options);
}

function alone({ rank, generation }: RingOptions): Collective {
  let closed = false;
  const check = () => {
    if (closed) throw new RingBroken(`the ring of generation ${generation} is closed`);
  };
  return {
    rank,
    world: 1,
    generation,
    allocate,
    reduce: (values, start, end) => checkPart(values, start, end),
    reduced: async () => check(),
    reduceNow(values) {
      checkPart(values, 0, values.length);
      check();
    },
    async broadcast(bytes, root) {
      checkRoot(bytes, root, rank, 1);
      check();
      return bytes!;
    },
    async allGather(bytes) {
      checkGathered(bytes);
      check();
      return [bytes];
    },
    barrier: async () => check(),
    async close() {
      closed = true;
    },
  };
}

export function allocate(length: number): Float32Array<SharedArrayBuffer> {
  return new Float32Array(new SharedArrayBuffer(length * Float32Array.BYTES_PER_ELEMENT));
}

export function checkPart(values: Float32Array, start: number, end: number): void {
  if (!(values.buffer instanceof SharedArrayBuffer)) {
    throw new TypeError(
      'only arrays from allocate(), or parts of them, can be reduced: this one is not in shared memory',
    );
  }
  if (!(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= values.length)) {
    throw new RangeError(`[${start}, ${end}) is no part of an array of ${values.length}`);
  }
}

export function checkRoot(bytes: Uint8Array | undefined, root: number, rank: number, world: number): void {
  if (!(Number.isInteger(root) && 0 <= root && root < world))
    throw new RangeError(`root ${root} is not one of ${world} ranks`);
  if (rank === root && !bytes) throw new TypeError(`rank ${rank} is the root of a broadcast and gives nothing`);
}

export function checkGathered(bytes: Uint8Array): void {
  if (bytes.length > MAX_GATHERED_BYTES) {
    throw new RangeError(`allGather takes at most ${MAX_GATHERED_BYTES} bytes of a rank; these are ${bytes.length}`);
  }
}
