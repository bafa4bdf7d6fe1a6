/**
 * Augmentation of training pictures, on uint8 pixels. What happens to a sample is a function of (seed, epoch, sample) alone,
 * whatever batch or process it is in.
 */
import type { Augmentation } from '../contract.ts';
import { randomStream, STREAM, type Stream } from '../philox.ts';

export interface PictureShape {
  height: number;
  width: number;
  channels: number;
}

/** Augments one picture in place; `scratch` is as large. */
type Transform = (picture: Uint8Array, scratch: Uint8Array, random: Stream) => void;

/** Augments pictures `[N, H, W, C]` in place; `samples` are their indices in the dataset. */
export function createAugmenter(augmentations: readonly Augmentation[], shape: PictureShape, seed: number) {
  const size = shape.height * shape.width * shape.channels;
  const scratch = new Uint8Array(size);
  const transforms = augmentations.map((augmentation) => createTransform(augmentation, shape));
  return (pictures: Uint8Array, samples: ArrayLike<number>, epoch: number): void => {
    if (transforms.length === 0) return;
    for (let i = 0; i < samples.length; i++) {
      const random = randomStream(seed, STREAM.AUGMENTATION, epoch, samples[i]!);
      const picture = pictures.subarray(i * size, (i + 1) * size);
      for (const transform of transforms) transform(picture, scratch, random);
    }
  };
}

function createTransform(augmentation: Augmentation, shape: PictureShape): Transform {
  switch (augmentation.type) {
    case 'RandomCrop': {
      const padding = augmentation.randomCrop?.padding ?? 4;
      const crop = randomCrop(shape, padding);
      return sometimes(augmentation.probability ?? 1, crop);
    }
    case 'HorizontalFlip':
      return sometimes(augmentation.probability ?? 0.5, horizontalFlip(shape));
  }
}

function sometimes(probability: number, transform: Transform): Transform {
  return (picture, scratch, random) => {
    if (random.uniform() < probability) transform(picture, scratch, random);
  };
}

/** Zeros on each side, then a crop of the old size: the picture moved by up to `padding` pixels. */
function randomCrop({ height, width, channels }: PictureShape, padding: number): Transform {
  return (picture, scratch, random) => {
    const down = random.integer(2 * padding + 1) - padding;
    const right = random.integer(2 * padding + 1) - padding;
    scratch.set(picture);
    picture.fill(0);
    const columns = width - Math.abs(right);
    if (columns <= 0) return;
    const [from, to] = [Math.max(0, right), Math.max(0, -right)];
    for (let y = Math.max(0, -down); y < Math.min(height, height - down); y++) {
      const start = ((y + down) * width + from) * channels;
      picture.set(scratch.subarray(start, start + columns * channels), (y * width + to) * channels);
    }
  };
}

function horizontalFlip({ height, width, channels }: PictureShape): Transform {
  return (picture) => {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width >> 1; x++) {
        const left = (y * width + x) * channels;
        const right = (y * width + width - 1 - x) * channels;
        for (let c = 0; c < channels; c++) {
          const held = picture[left + c]!;
          picture[left + c] = picture[right + c]!;
          picture[right + c] = held;
        }
      }
    }
  };
}
