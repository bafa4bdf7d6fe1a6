/**
 * Shards: tar files in WebDataset form. A sample is three entries of one key, in this order: `<key>.cls` (the label index in
 * decimal), `<key>.json` (`{"path": <path in the source>}`) and `<key>.jpg`, `.png` or `.webp` (the picture's bytes as they were
 * found). Keys ascend. Owner, mode and time are fixed, so equal samples make equal bytes.
 */
import { extract, type Pack, pack } from 'tar-stream';
import { z } from 'zod';
import { TrainerError } from '../errors.ts';
import type { Blob, Store } from '../store.ts';

export interface Sample {
  key: string;
  /** Path in the source. */
  path: string;
  /** Index into the dataset's classes. */
  label: number;
  /** The picture's bytes. */
  bytes: Buffer;
}

export interface PackedSample extends Sample {
  /** `jpg`, `png` or `webp` */
  extension: string;
}

export interface Shard extends Blob {
  samples: number;
}

/** A shard is closed before it would exceed this; a single larger sample has one of its own. */
const SHARD_BYTES = 64 * 1024 * 1024;

const BLOCK = 512;
const END_OF_TAR = 2 * BLOCK;
const Label = z.string().regex(/^\d+$/).transform(Number);
const Origin = z.object({ path: z.string() });

/** Packs `samples` into the store, in their order. */
export async function packShards(store: Store, samples: AsyncIterable<PackedSample>): Promise<Shard[]> {
  const shards: Shard[] = [];
  const iterator = samples[Symbol.asyncIterator]();
  let unread: unknown;
  const read = () =>
    iterator.next().catch((error) => {
      unread = error;
      throw error;
    });
  let next = await read();
  while (!next.done) {
    const archive = pack();
    const stored = store.putStream(archive as AsyncIterable<Uint8Array>);
    // Awaited below; until then a failure is not unhandled.
    stored.catch(() => {});
    let size = END_OF_TAR;
    let count = 0;
    try {
      for (; !next.done; next = await read()) {
        const entries = entriesOf(next.value);
        const added = entries.reduce((sum, [, content]) => sum + BLOCK + Math.ceil(content.length / BLOCK) * BLOCK, 0);
        if (count > 0 && size + added > SHARD_BYTES) break;
        for (const [name, content] of entries) await add(archive, name, content);
        size += added;
        count += 1;
      }
      archive.finalize();
    } catch (error) {
      archive.destroy();
      // What the store could not write is the cause where an entry could not be added; a sample that cannot be read is the cause itself.
      await (error === unread ? stored.catch(() => {}) : stored);
      throw error;
    }
    shards.push({ ...(await stored), samples: count });
  }
  return shards;
}

function entriesOf({ key, path, label, bytes, extension }: PackedSample): [name: string, content: Buffer][] {
  return [
    [`${key}.cls`, Buffer.from(String(label))],
    [`${key}.json`, Buffer.from(JSON.stringify({ path }))],
    [`${key}.${extension}`, bytes],
  ];
}

/** Resolves when the entry was taken, so that the archive is never far ahead of the disk. */
function add(archive: Pack, name: string, content: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const entry = archive.entry({ name, size: content.length, mode: 0o644, mtime: new Date(0) }, (error) =>
      error ? reject(error) : resolve(),
    );
    entry.end(content);
  });
}

/** The samples of a shard, in its order. Throws TrainerError ShardDamaged if it is no such tar. */
export async function* readShard(bytes: Buffer): AsyncGenerator<Sample> {
  let sample: Partial<Sample> = {};
  for await (const { name, content } of entriesIn(bytes)) {
    const dot = name.lastIndexOf('.');
    const key = name.slice(0, dot);
    if (key !== sample.key) sample = { key };
    try {
      switch (name.slice(dot)) {
        case '.cls':
          sample.label = Label.parse(content.toString('latin1'));
          break;
        case '.json':
          sample.path = Origin.parse(JSON.parse(content.toString('utf8'))).path;
          break;
        default:
          sample.bytes = content;
      }
    } catch (error) {
      throw new TrainerError('ShardDamaged', `shard entry ${name} cannot be read: ${(error as Error).message}`);
    }
    if (sample.label !== undefined && sample.path !== undefined && sample.bytes) yield sample as Sample;
  }
}

async function* entriesIn(bytes: Buffer): AsyncGenerator<{ name: string; content: Buffer }> {
  const archive = extract();
  archive.end(bytes);
  try {
    for await (const entry of archive) {
      const chunks: Buffer[] = [];
      for await (const chunk of entry) chunks.push(chunk as Buffer);
      yield { name: entry.header.name, content: chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks) };
    }
  } catch (error) {
    if (error instanceof TrainerError) throw error;
    throw new TrainerError('ShardDamaged', `a shard is no tar: ${(error as Error).message}`, { cause: error });
  }
}
