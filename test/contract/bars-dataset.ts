/** A small dataset for training tests: bars across or upright, in noise, as PNG in shards. */
import sharp from 'sharp';
import { DatasetIndex, SPLITS } from '../../trainer-image/contract.ts';
import { type PackedSample, packShards } from '../../trainer-image/data/shards.ts';
import { randomStream } from '../../trainer-image/philox.ts';
import type { Store } from '../../trainer-image/store.ts';

const SIZE = 8;

/** Packs so many samples of each split and returns the dataset's digest. */
export async function packBars(store: Store, counts: Record<(typeof SPLITS)[number], number>): Promise<string> {
  const splits: Record<string, unknown> = {};
  for (const [index, split] of SPLITS.entries()) {
    const shards = await packShards(store, samplesOf(split, index, counts[split]));
    const half = counts[split] / 2;
    splits[split] = { samples: counts[split], perClass: [Math.ceil(half), Math.floor(half)], shards };
  }
  const report = await store.putBytes('{}');
  const index = DatasetIndex.parse({
    format: 'fovea.dev/dataset/v1',
    classes: ['across', 'upright'],
    colour: 'Grey',
    statistics: { mean: [0.35], std: [0.3] },
    splits,
    report: report.digest,
  });
  return (await store.putBytes(JSON.stringify(index))).digest;
}

async function* samplesOf(split: string, stream: number, count: number): AsyncGenerator<PackedSample> {
  for (let i = 0; i < count; i++) {
    const random = randomStream(7, 1000 + stream, i, 0);
    const label = i % 2;
    const bar = random.integer(SIZE);
    const pixels = Uint8Array.from({ length: SIZE * SIZE }, (_, p) => {
      const inBar = (label === 0 ? Math.floor(p / SIZE) : p % SIZE) === bar;
      return (inBar ? 180 : 20) + random.integer(75);
    });
    const bytes = await sharp(pixels, { raw: { width: SIZE, height: SIZE, channels: 1 } })
      .png()
      .toBuffer();
    yield { key: String(i).padStart(9, '0'), path: `${split}/${label}/${i}.png`, label, bytes, extension: 'png' };
  }
}
