/** Which program stands for which image: pods run the checkout itself, so a changed source needs no image build. */
import { realpathSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';

const REPOSITORY = join(import.meta.dirname, '..', '..');

/** Each image's entry point, from the root of the repository. A pod's `args` follow it. */
const IMAGES = {
  'fovea/operator:dev': 'operator/main.ts',
  'fovea/gateway:dev': 'operator/gateway/main.ts',
  'fovea/trainer:dev': 'trainer-image/main.ts',
};

/** The process node's image file for fovea's own images. */
export function ownImages(): string {
  // What npm has installed is Node 24, whatever runs this.
  const node = realpathSync(join(REPOSITORY, 'node_modules', '.bin', 'node'));
  const images = Object.entries(IMAGES).map(([image, entry]) => [
    image,
    { command: [node, join(REPOSITORY, entry)], workdir: REPOSITORY },
  ]);
  return stringify({ images: Object.fromEntries(images) });
}
