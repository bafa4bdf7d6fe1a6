/**
 * How workers that meet in a new ring come to one state. A survivor keeps what it has; the furthest of them wins, and whoever lacks
 * that state gets it from the lowest rank that has it. Only where nobody has any is a checkpoint read, by rank 0.
 */
import { z } from 'zod';
import type { Collective } from '../collectives/index.ts';
import { Digest } from '../contract.ts';
import { TrainerError } from '../errors.ts';
import { decodeState, digestOf, encodeState, type Position, type TrainingState } from './state-file.ts';

/** What a worker says of its state. */
const Standing = z.strictObject({
  /** Finished units of work: steps, and epochs closed. */
  done: z.int().min(0),
  digest: Digest,
});
type Standing = z.infer<typeof Standing>;

/** Grows with every step and every epoch that is closed, so that of two states of one run it tells the further. */
export function doneOf(position: Position): number {
  return position.step + position.epoch;
}

/** Whose state all take up: a rank, or nobody's. `lacking`: some rank has another state, or none. */
export type Verdict = { from: number; lacking: boolean } | 'nobody';

/**
 * Decides by what each rank says; pure.
 * @throws TrainerError RanksDiverged if two states at the same step differ
 */
export function decide(standings: readonly (Standing | undefined)[]): Verdict {
  const furthest = Math.max(...standings.map((s) => s?.done ?? -1));
  if (furthest < 0) return 'nobody';
  const holders = standings.flatMap((s, rank) => (s?.done === furthest ? [{ rank, digest: s.digest }] : []));
  const from = holders[0]!;
  const other = holders.find(({ digest }) => digest !== from.digest);
  if (other) {
    throw new TrainerError(
      'RanksDiverged',
      `ranks ${from.rank} and ${other.rank} are at the same step with different weights: all go back to the last checkpoint. ` +
        'Workers must run on the same kind of machine, with the same image and as many threads',
    );
  }
  return { from: from.rank, lacking: holders.length < standings.length };
}

/**
 * The state that all ranks go on from; the very object `own` where that is it.
 *
 * @param own this rank's state, if it has one
 * @param begin reads a checkpoint, or makes the first state; called at rank 0 only, if nobody has a state
 * @throws RingBroken, or TrainerError RanksDiverged
 */
export async function agree(
  ring: Collective,
  own: TrainingState | undefined,
  begin: () => Promise<TrainingState>,
): Promise<TrainingState> {
  const standing: Standing | undefined = own && { done: doneOf(own.position), digest: digestOf(encodeState(own)) };
  const said = await ring.allGather(Buffer.from(JSON.stringify(standing ?? null)));
  const standings = said.map((bytes) => Standing.nullable().parse(JSON.parse(Buffer.from(bytes).toString())));
  const verdict = decide(standings.map((s) => s ?? undefined));
  if (verdict !== 'nobody' && !verdict.lacking) return own!;
  const from = verdict === 'nobody' ? 0 : verdict.from;
  const given = ring.rank === from ? (own ?? (await begin())) : undefined;
  const bytes = await ring.broadcast(given && Buffer.concat(encodeState(given)), from);
  if (given) return given;
  const isSame = own && standings[from] && standing!.digest === standings[from].digest;
  return isSame ? own : decodeState(bytes);
}
