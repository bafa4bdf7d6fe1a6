import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Colour } from '../contract.ts';
import { pictureHeader } from './picture.ts';
import { DEFAULT_LIMITS, decodePicture, decodePixels, PictureError, type PictureLimits } from './preprocess.ts';
import { makePicture } from './test-pictures.ts';

const it = suite('preprocess');

type Raw = { width: number; height: number; channels: 1 | 2 | 3 | 4 };

/** A PNG of exactly these values, `[height, width, channels]`. */
function png(values: number[], raw: Raw): Promise<Buffer> {
  return sharp(Buffer.from(values), { raw }).png().toBuffer();
}

const decode = (bytes: Uint8Array, colour: Colour, height: number, width: number) =>
  decodePicture(bytes, { colour, height, width });

async function problemOf(bytes: Uint8Array, limits: PictureLimits = DEFAULT_LIMITS): Promise<string> {
  try {
    await decodePicture(bytes, { colour: 'RGB', height: 8, width: 8 }, limits);
  } catch (error) {
    assert.instance(error, PictureError);
    return (error as PictureError).reason;
  }
  return 'none';
}

it('gives [height, width, channels] in RGB or grey, from a colour or a grey picture', async () => {
  const red = await png([255, 0, 0, 255, 0, 0], { width: 2, height: 1, channels: 3 });
  assert.equal([...(await decode(red, 'RGB', 1, 2))], [255, 0, 0, 255, 0, 0]);
  // Luminance, not a mean of channels: red is darker than green.
  const [darker] = await decode(red, 'Grey', 1, 1);
  const [lighter] = await decode(await png([0, 255, 0], { width: 1, height: 1, channels: 3 }), 'Grey', 1, 1);
  assert.ok(darker! > 40 && darker! < lighter!, `red is ${darker}, green is ${lighter}`);
  const grey = await png([10, 200], { width: 2, height: 1, channels: 1 });
  assert.equal([...(await decode(grey, 'Grey', 1, 2))], [10, 200]);
  assert.equal([...(await decode(grey, 'RGB', 1, 2))], [10, 10, 10, 200, 200, 200]);
  assert.is((await decode(await makePicture(1), 'RGB', 5, 7)).length, 5 * 7 * 3);
  assert.is((await decode(await makePicture(1), 'Grey', 5, 7)).length, 5 * 7);
});

it('drops transparency without blending, and makes 8 bits of 16', async () => {
  const half = await png([90, 60, 30, 10], { width: 1, height: 1, channels: 4 });
  assert.equal([...(await decode(half, 'RGB', 1, 1))], [90, 60, 30]);
  const deep = await sharp(Buffer.from(new Uint16Array([0x8000, 0xff00]).buffer), {
    raw: { width: 2, height: 1, channels: 1 },
  })
    .toColourspace('grey16')
    .png()
    .toBuffer();
  assert.is((await decode(deep, 'Grey', 1, 2)).length, 2);
});

it('turns a picture upright as its EXIF orientation says', async () => {
  const lying = await sharp(Buffer.from([10, 20, 30, 40, 50, 60]), { raw: { width: 3, height: 2, channels: 1 } })
    .withMetadata({ orientation: 6 })
    .png()
    .toBuffer();
  const { data, width, height } = await decodePixels(lying, 'Grey', DEFAULT_LIMITS);
  assert.equal([width, height], [2, 3]);
  // Turned clockwise: the lower left corner comes to the upper left.
  assert.equal([...data], [40, 10, 50, 20, 60, 30]);
});

it('gives the same pixels for one content, whatever its lossless format, its bytes’ offset or when', async () => {
  const bytes = await makePicture(7);
  const lossless = await sharp(bytes).webp({ lossless: true }).toBuffer();
  const padded = new Uint8Array(bytes.length + 13);
  padded.set(bytes, 13);
  const want = await decode(bytes, 'RGB', 8, 8);
  for (const other of [lossless, padded.subarray(13), bytes]) assert.equal(await decode(other, 'RGB', 8, 8), want);
});

it('reads the size from the header of every kind of JPEG, PNG and WebP', async () => {
  const picture = sharp(await makePicture(3, 'png', [37, 23]));
  const kinds = {
    png: [picture.clone().png(), picture.clone().png({ palette: true }), picture.clone().greyscale().png()],
    jpeg: [
      picture.clone().jpeg(),
      picture.clone().jpeg({ progressive: true }),
      picture.clone().withMetadata({ orientation: 1 }).jpeg(),
      picture.clone().toColourspace('cmyk').jpeg(),
    ],
    webp: [
      picture.clone().webp(),
      picture.clone().webp({ lossless: true }),
      picture.clone().ensureAlpha(0.5).webp(),
      picture.clone().withMetadata().webp(),
    ],
  };
  for (const [format, variants] of Object.entries(kinds)) {
    for (const [i, variant] of variants.entries()) {
      const bytes = await variant.toBuffer();
      assert.equal(pictureHeader(bytes), { format, width: 37, height: 23 }, `${format} ${i}`);
      assert.is(await problemOf(bytes), 'none', `${format} ${i}`);
    }
  }
});

it('says of each file that is no usable picture what it is', async () => {
  const big = await makePicture(1, 'png', [40, 40]);
  assert.is(await problemOf(Buffer.alloc(0)), 'Empty');
  assert.is(await problemOf(Buffer.from('not a picture')), 'UnsupportedFormat');
  assert.is(await problemOf(await makePicture(1, 'gif')), 'UnsupportedFormat');
  assert.is(await problemOf(await sharp(big).tiff().toBuffer()), 'UnsupportedFormat');
  assert.is(
    await problemOf(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>')),
    'UnsupportedFormat',
  );
  assert.is(await problemOf(big, { ...DEFAULT_LIMITS, maxBytes: big.length - 1 }), 'TooLarge');
  assert.is(await problemOf(big, { ...DEFAULT_LIMITS, maxBytes: big.length }), 'none');
  assert.is(await problemOf(big, { ...DEFAULT_LIMITS, maxPixels: 1599 }), 'TooManyPixels');
  assert.is(await problemOf(big, { ...DEFAULT_LIMITS, maxPixels: 1600 }), 'none');
});

it('a picture that is cut is never taken for a whole one', async () => {
  for (const format of ['png', 'jpeg', 'webp'] as const) {
    const bytes = await makePicture(5, format, [64, 48]);
    const sizes = [12, 20, 30, Math.floor(bytes.length / 3), Math.floor(bytes.length / 2), bytes.length - 20];
    for (const size of sizes) assert.is(await problemOf(bytes.subarray(0, size)), 'Truncated', `${format} to ${size}`);
  }
});

it('a picture with overwritten parts is unreadable, and a size that nothing backs is refused before it is decoded', async () => {
  for (const format of ['png', 'jpeg'] as const) {
    const bytes = await makePicture(5, format, [64, 48]);
    bytes.fill(0xff, Math.floor(bytes.length / 2), Math.floor(bytes.length / 2) + 100);
    assert.is(await problemOf(bytes), 'Unreadable', format);
  }
  const claimed = await makePicture(5);
  claimed.writeUInt32BE(100_000, 16);
  claimed.writeUInt32BE(100_000, 20);
  assert.is(await problemOf(claimed), 'TooManyPixels');
});

it.run();
