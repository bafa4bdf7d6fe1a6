import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parse } from 'yaml';
import { greyPng, writePictures } from './pictures.ts';

const it = suite('quickstart pictures');

it('are a PNG that a decoder reads back, pixel by pixel', async () => {
  const pixels = Uint8Array.from({ length: 784 }, (_, i) => (i * 7) % 256);
  const { data, info } = await sharp(greyPng(pixels)).toColourspace('b-w').raw().toBuffer({ resolveWithObject: true });
  assert.equal([info.width, info.height, info.channels], [28, 28, 1]);
  assert.equal(new Uint8Array(data), pixels);
});

it('are the tar whose digest the Dataset names', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'fovea-pictures-'));
  try {
    const digest = await writePictures(path.join(folder, 'fashion.tar'), () => {});
    const dataset = parse(await readFile(path.join(import.meta.dirname, 'dataset.yaml'), 'utf8'));
    assert.is(digest, dataset.spec.source.http.digest);
  } finally {
    await rm(folder, { recursive: true });
  }
});

it.run();
