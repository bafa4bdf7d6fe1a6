/**
 * What a run keeps in its folder while it lasts: a journal (JSON) of state files, and the files. A state file is written and synced
 * before the journal names it with its digest, so a run that is killed anywhere goes on from the newest file that is whole.
 *
 * One process writes, the worker of rank 0. The journal names the generation of the ring it wrote for, and one that finds a greater
 * generation there has been replaced and writes no more.
 */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import canonicalize from 'canonicalize';
import { z } from 'zod';
import { Digest, type Metric, TrainResult, type TrainTask } from '../contract.ts';
import { TrainerError, UserError } from '../errors.ts';
import { readDocument, type Store, writeDocument, writeFileDurably } from '../store.ts';
import { type Best, decodeState, digestOf, encodeState, FileEntry, type TrainingState } from './state-file.ts';

const Journal = z.strictObject({
  format: z.literal('fovea.dev/run/v1'),
  /** Digest of the part of the task that decides the numbers. */
  task: Digest,
  /** Of the ring whose rank 0 wrote last; 0 where one worker trains alone. */
  generation: z.int().min(0).default(0),
  /** Oldest first. */
  states: z.array(FileEntry.extend({ step: z.int(), best: FileEntry.shape.file.optional() })),
  result: TrainResult.optional(),
});
type Journal = z.infer<typeof Journal>;

/** Another worker has taken over the journal. */
export class JournalTaken extends Error {
  override name = 'JournalTaken';
}

export interface RunJournal {
  /** The result, if the run has ended and its model is in the store. */
  finished(): Promise<TrainResult | undefined>;
  /**
   * What is written from now on is written for this generation. Whoever `leads` says so in the journal at once, so that who led before
   * writes no more.
   * @throws JournalTaken if a later generation has written; so does every later write
   */
  enter(generation: number, leads: boolean): Promise<void>;
  /** Step of the newest state; -1 without one. */
  newestStep(): Promise<number>;
  /** The newest state whose file, and best model, hold what the journal says. */
  resume(note: (line: string) => void): Promise<TrainingState | undefined>;
  /**
   * Saves a state and removes all but the newest `keepLast`.
   * @throws TrainerError StoreFull; the journal and what it names are then as they were
   */
  save(state: TrainingState, keepLast: number): Promise<void>;
  /**
   * Writes the model file of the best epoch; older ones go when no kept state names them. Where the store is full it is held in memory
   * and written with the next state.
   */
  saveBest(epoch: number, metrics: Metric[], content: readonly Buffer[]): Promise<Best>;
  /** The content of the best model's file. */
  readBest(best: Best): Promise<Buffer>;
  /** Keeps the result and removes the files, which have served. */
  finish(result: TrainResult): Promise<void>;
}

/**
 * Opens the journal of `task.run`, or begins it.
 * @throws UserError RunOfAnotherTask if the folder belongs to a run with another recipe, model or dataset
 */
export async function openJournal(store: Store, task: TrainTask): Promise<RunJournal> {
  const folder = await store.runFolder(task.run);
  const path = join(folder, 'journal.json');
  const identity = taskDigest(task);
  let generation = 0;
  /** The best model where the store was too full for it. */
  let unwritten: { best: Best; content: Buffer } | undefined;

  /** As it is now: another worker may have written meanwhile. */
  const read = async (): Promise<Journal> => {
    const found = Journal.safeParse(await readDocument(path));
    const journal: Journal = found.data ?? {
      format: 'fovea.dev/run/v1',
      task: identity,
      generation: 0,
      states: [],
    };
    if (journal.task !== identity) {
      throw new UserError(
        'RunOfAnotherTask',
        `runs/${task.run} belongs to a run with another model, recipe or dataset: use another run name, or remove the folder`,
      );
    }
    return journal;
  };

  /** The journal, to be changed. */
  const readOwn = async (): Promise<Journal> => {
    const journal = await read();
    if (journal.generation > generation) {
      throw new JournalTaken(
        `runs/${task.run} is written by the ring of generation ${journal.generation}, and this one is ${generation}`,
      );
    }
    return { ...journal, generation };
  };

  /** The file's content if it is whole. */
  const readWhole = async ({ file, digest }: z.infer<typeof FileEntry>): Promise<Buffer | undefined> => {
    const bytes = await readFile(join(folder, file)).catch(() => undefined);
    return bytes && digestOf([bytes]) === digest ? bytes : undefined;
  };

  /** Removes all state and model files but these. */
  const removeOthers = async (keep: readonly string[]) => {
    const names = new Set(keep);
    for (const file of await readdir(folder)) {
      if (/^(state|best)-.*/.test(file) && !names.has(file)) await rm(join(folder, file), { force: true });
    }
  };

  const writeBest = async () => {
    if (!unwritten) return;
    await writeFileDurably(join(folder, unwritten.best.file), unwritten.content);
    unwritten = undefined;
  };

  await read();
  return {
    async finished() {
      const { result } = await read();
      if (!result) return undefined;
      const there = await store.path(result.artifact.digest).then(
        () => true,
        () => false,
      );
      return there ? result : undefined;
    },

    async enter(entered, leads) {
      generation = entered;
      if (!leads) return;
      const journal = await readOwn();
      if (entered > 0) await writeDocument(path, journal);
    },

    async newestStep() {
      return (await read()).states.at(-1)?.step ?? -1;
    },

    async resume(note) {
      for (const entry of (await read()).states.toReversed()) {
        const bytes = await readWhole(entry);
        if (!bytes) {
          note(`checkpoint ${entry.file} of step ${entry.step} is damaged or missing; trying the one before`);
          continue;
        }
        const state = decodeState(bytes);
        if (state.position.best && !(await readWhole(state.position.best))) {
          note(`the best model of checkpoint ${entry.file} is damaged or missing; trying the one before`);
          continue;
        }
        return state;
      }
      return undefined;
    },

    async save(state, keepLast) {
      await readOwn();
      await writeBest();
      const { step, epoch, best } = state.position;
      const content = encodeState(state);
      // Before and after its validation, the same step has two states.
      const file = `state-${step}-${epoch}.safetensors`;
      await writeFileDurably(join(folder, file), Buffer.concat(content));
      const journal = await readOwn();
      const entry = { file, digest: digestOf(content), step, best: best?.file };
      journal.states = [...journal.states.filter((s) => s.step < step), entry].slice(-keepLast);
      await writeDocument(path, journal);
      const keep = journal.states.flatMap((s) => (s.best ? [s.file, s.best] : [s.file]));
      await removeOthers(keep);
    },

    async saveBest(epoch, metrics, pieces) {
      await readOwn();
      const content = Buffer.concat(pieces);
      const best = { file: `best-${epoch}.safetensors`, digest: digestOf([content]), epoch, metrics };
      unwritten = { best, content };
      await writeBest().catch((error) => {
        if (!isStoreFull(error)) throw error;
      });
      return best;
    },

    async readBest(best) {
      const bytes = unwritten?.best.file === best.file ? unwritten.content : await readWhole(best);
      if (!bytes) throw new Error(`the best model, ${best.file} in runs/${task.run}, was damaged or removed meanwhile`);
      return bytes;
    },

    async finish(result) {
      const journal = await readOwn();
      await writeDocument(path, { ...journal, result, states: [] });
      await removeOthers([]);
    },
  };
}

export function isStoreFull(error: unknown): error is TrainerError {
  return error instanceof TrainerError && error.reason === 'StoreFull';
}

/** Digest of what decides the numbers: not the folder's name, the number of workers or threads, or when state is saved. */
function taskDigest({ dataset, model, recipe }: TrainTask): string {
  return digestOf([Buffer.from(canonicalize({ dataset, model, recipe })!)]);
}
