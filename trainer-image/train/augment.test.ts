import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createAugmenter } from './augment.ts';
import { epochOrder } from './sampler.ts';

const it = suite('augmentation and order');
const shape = { height: 4, width: 5, channels: 2 };
const size = 40;
const picture = (sample: number) => Uint8Array.from({ length: size }, (_, i) => 1 + ((i + 41 * sample) % 255));

/** The pictures of `samples` after augmentation, in their order. */
function augmented(augmentations: Parameters<typeof createAugmenter>[0], samples: number[], epoch = 0, seed = 0) {
  const pictures = Uint8Array.from(samples.flatMap((s) => [...picture(s)]));
  createAugmenter(augmentations, shape, seed)(pictures, samples, epoch);
  return samples.map((_, i) => [...pictures.subarray(i * size, (i + 1) * size)]);
}
const both = [{ type: 'RandomCrop', randomCrop: { padding: 2 } } as const, { type: 'HorizontalFlip' } as const];

it('does to a sample what seed, epoch and sample say, whatever batch it is in', () => {
  const alone = augmented(both, [7])[0];
  assert.equal(augmented(both, [3, 7, 1])[1], alone);
  const samples = Array.from({ length: 20 }, (_, i) => i);
  assert.not.equal(augmented(both, samples, 0), augmented(both, samples, 1));
  assert.not.equal(augmented(both, samples, 0, 0), augmented(both, samples, 0, 1));
});

it('flips rows pixel by pixel', () => {
  const [flipped] = augmented([{ type: 'HorizontalFlip', probability: 1 }], [0]);
  assert.equal(flipped!.slice(0, 10), [9, 10, 7, 8, 5, 6, 3, 4, 1, 2]);
});

it('flips about as many pictures as it should', () => {
  const samples = Array.from({ length: 400 }, (_, i) => i);
  const result = augmented([{ type: 'HorizontalFlip', probability: 0.25 }], samples);
  const flipped = result.filter((p, i) => p[0] !== picture(i)[0]).length;
  assert.ok(flipped > 70 && flipped < 130, `${flipped} of 400`);
});

it('crops to every offset within the padding, with zeros outside', () => {
  const original = picture(0);
  const seen = new Set<string>();
  const samples = Array.from({ length: 300 }, () => 0);
  for (let epoch = 0; epoch < 300; epoch++) {
    const [moved] = augmented([{ type: 'RandomCrop', randomCrop: { padding: 1 } }], [samples[0]!], epoch);
    const offset = [-1, 0, 1]
      .flatMap((dy) => [-1, 0, 1].map((dx) => [dy, dx] as const))
      .find(([dy, dx]) =>
        moved!.every((byte, i) => {
          const [y, x] = [Math.floor(i / 10) + dy, (Math.floor(i / 2) % 5) + dx];
          return byte === (y < 0 || y > 3 || x < 0 || x > 4 ? 0 : original[(y * 5 + x) * 2 + (i % 2)]);
        }),
      );
    assert.ok(offset, 'a moved picture');
    seen.add(String(offset));
  }
  assert.is(seen.size, 9);
});

it('gives nothing but zeros when the crop misses the picture', () => {
  const all = Array.from({ length: 200 }, (_, i) => i);
  const result = augmented([{ type: 'RandomCrop', randomCrop: { padding: 64 } }], all);
  assert.ok(result.some((p) => p.every((byte) => byte === 0)));
});

it('orders each epoch anew, each sample once', () => {
  const order = epochOrder(1, 0, 1000);
  assert.equal(
    [...order].sort((a, b) => a - b),
    Array.from({ length: 1000 }, (_, i) => i),
  );
  assert.equal(epochOrder(1, 0, 1000), order);
  assert.not.equal(epochOrder(1, 1, 1000), order);
  assert.not.equal(epochOrder(2, 0, 1000), order);
});

it.run();
