/**
 * What a run keeps in its folder while it lasts: a journal (JSON) of state files, and the files. A state file is written and synced
 * before the journal names it with its digest, so a run that is killed anywhere goes on from the newest file that is whole.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import canonicalize from 'canonicalize';
import { z } from 'zod';
import { Digest, Metric, TrainResult, type TrainTask } from '../contract.ts';
import { UserError } from '../errors.ts';
import type { Weights } from '../models/weights.ts';
import { readDocument, type Store, writeDocument, writeFileDurably } from '../store.ts';
import { decodeSafetensors, encodeSafetensors } from './safetensors.ts';

const FileEntry = z.strictObject({ file: z.string().regex(/^[a-z0-9-]+\.safetensors$/), digest: Digest });

/** The best epoch so far; its file is a whole model file. */
const Best = FileEntry.extend({ epoch: z.int(), metrics: z.array(Metric) });
export type Best = z.infer<typeof Best>;

/** Where training stands. `step` counts finished steps of the run, `lossSum` the loss over those of the epoch that is under way. */
const Position = z.strictObject({
  step: z.int().min(0),
  lossSum: z.number(),
  best: Best.optional(),
});
export type Position = z.infer<typeof Position>;

const Journal = z.strictObject({
  format: z.literal('fovea.dev/run/v1'),
  /** Digest of the part of the task that decides the numbers. */
  task: Digest,
  /** Oldest first. */
  states: z.array(FileEntry.extend({ step: z.int(), best: FileEntry.shape.file.optional() })),
  result: TrainResult.optional(),
});
type Journal = z.infer<typeof Journal>;

export interface SavedState {
  position: Position;
  weights: Weights;
  optimizer: Weights;
}

export interface RunJournal {
  /** The result, if the run has ended and its model is in the store. */
  finished(): Promise<TrainResult | undefined>;
  /** The newest state whose file, and best model, hold what the journal says. */
  resume(note: (line: string) => void): Promise<SavedState | undefined>;
  /** Saves a state and removes all but the newest `keepLast`. */
  save(state: SavedState, keepLast: number): Promise<void>;
  /** Writes the model file of the best epoch; older ones go when no kept state names them. */
  saveBest(epoch: number, metrics: Metric[], content: readonly Buffer[]): Promise<Best>;
  /** The content of the best model's file. */
  readBest(best: Best): Promise<Buffer>;
  /** Keeps the result and removes the files, which have served. */
  finish(result: TrainResult): Promise<void>;
}

const OPTIMIZER_PREFIX = 'optimizer.';

/**
 * Opens the journal of `task.run`, or begins it.
 * @throws UserError RunOfAnotherTask if the folder belongs to a run with another recipe, model or dataset
 */
export async function openJournal(store: Store, task: TrainTask): Promise<RunJournal> {
  const folder = await store.runFolder(task.run);
  const path = join(folder, 'journal.json');
  const identity = taskDigest(task);
  const found = Journal.safeParse(await readDocument(path));
  const journal: Journal = found.data ?? { format: 'fovea.dev/run/v1', task: identity, states: [] };
  if (journal.task !== identity) {
    throw new UserError(
      'RunOfAnotherTask',
      `runs/${task.run} belongs to a run with another model, recipe or dataset: use another run name, or remove the folder`,
    );
  }

  /** The file's content if it is whole. */
  const readWhole = async ({ file, digest }: z.infer<typeof FileEntry>): Promise<Buffer | undefined> => {
    const bytes = await readFile(join(folder, file)).catch(() => undefined);
    return bytes && digestOf([bytes]) === digest ? bytes : undefined;
  };

  const write = async (file: string, content: readonly Buffer[]) => {
    await writeFileDurably(join(folder, file), Buffer.concat(content));
    return { file, digest: digestOf(content) };
  };

  /** Removes all state and model files but these. */
  const removeOthers = async (keep: readonly string[]) => {
    const names = new Set(keep);
    for (const file of await readdir(folder)) {
      if (/^(state|best)-.*/.test(file) && !names.has(file)) await rm(join(folder, file), { force: true });
    }
  };

  return {
    async finished() {
      if (!journal.result) return undefined;
      const there = await store.path(journal.result.artifact.digest).then(
        () => true,
        () => false,
      );
      return there ? journal.result : undefined;
    },

    async resume(note) {
      for (const entry of journal.states.toReversed()) {
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
      const { step } = state.position;
      const entry = {
        ...(await write(`state-${step}.safetensors`, encodeState(state))),
        step,
        best: state.position.best?.file,
      };
      journal.states = [...journal.states.filter((s) => s.step < step), entry].slice(-keepLast);
      await writeDocument(path, journal);
      await removeOthers(journal.states.flatMap(({ file, best }) => (best ? [file, best] : [file])));
    },

    async saveBest(epoch, metrics, content) {
      return { ...(await write(`best-${epoch}.safetensors`, content)), epoch, metrics };
    },

    async readBest(best) {
      const bytes = await readWhole(best);
      if (!bytes) throw new Error(`the best model, ${best.file} in runs/${task.run}, was damaged or removed meanwhile`);
      return bytes;
    },

    async finish(result) {
      journal.result = result;
      journal.states = [];
      await writeDocument(path, journal);
      await removeOthers([]);
    },
  };
}

/** Digest of what decides the numbers: not the folder's name, the number of threads or when state is saved. */
function taskDigest({ dataset, model, recipe }: TrainTask): string {
  return digestOf([Buffer.from(canonicalize({ dataset, model, recipe })!)]);
}

function digestOf(pieces: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return `sha256:${hash.digest('hex')}`;
}

function encodeState({ position, weights, optimizer }: SavedState): Buffer[] {
  const tensors = new Map(weights);
  for (const [name, value] of optimizer) tensors.set(OPTIMIZER_PREFIX + name, value);
  return encodeSafetensors(tensors, { fovea: JSON.stringify(position) });
}

function decodeState(bytes: Buffer): SavedState {
  const { tensors, metadata } = decodeSafetensors(bytes);
  const weights: Weights = new Map();
  const optimizer: Weights = new Map();
  for (const [name, value] of tensors) {
    if (name.startsWith(OPTIMIZER_PREFIX)) optimizer.set(name.slice(OPTIMIZER_PREFIX.length), value);
    else weights.set(name, value);
  }
  return { position: Position.parse(JSON.parse(metadata.fovea!)), weights, optimizer };
}
