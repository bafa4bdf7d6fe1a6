/** What the thread that computes and the thread of its ring say to each other. */
import type { RingMember } from './index.ts';

/** What the thread is started with. */
export interface ThreadData {
  generation: number;
  rank: number;
  members: readonly RingMember[];
  secret: Uint8Array;
  port: number;
  connectSeconds: number;
  silenceSeconds: number;
  mostGathered: number;
  /** See `CONTROL`. */
  control: Int32Array<SharedArrayBuffer>;
}

/** Cells of the memory by which a thread that blocks sees how far the ring is. */
export const CONTROL = {
  /** Number of the last operation that is done. */
  DONE: 0,
  /** When the ring is broken: 1 more than the rank whose fault it is, or `NOBODY`. 0 until then. */
  BROKEN: 1,
} as const;

export type Order =
  | { type: 'reduce'; values: Float32Array }
  | { type: 'gather'; bytes: Uint8Array }
  | { type: 'broadcast'; bytes: Uint8Array | undefined; root: number }
  | { type: 'close' };

export type Report =
  | { type: 'met' }
  | { type: 'done'; operation: number; result: Uint8Array | Uint8Array[] | undefined }
  | { type: 'broken'; message: string; rank: number | undefined };

/** In `CONTROL.BROKEN`: it is not known whose fault it is. */
export const NOBODY = -1;
