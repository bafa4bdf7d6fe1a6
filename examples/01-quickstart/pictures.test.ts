import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parse } from 'yaml';
import { cachedTar, digestOf, draw, fashionTar, png, serveAt, serveFile } from './pictures.ts';

const it = suite('quickstart pictures');

it('are PNGs that a decoder reads back, pixel by pixel', async () => {
  const pixels = Uint8Array.from({ length: 784 }, (_, i) => (i * 7) % 256);
  const { data, info } = await sharp(png(pixels)).toColourspace('b-w').raw().toBuffer({ resolveWithObject: true });
  assert.equal([info.width, info.height, info.channels], [28, 28, 1]);
  assert.equal(new Uint8Array(data), pixels);
});

it('leave out empty rows and copies, and are the same whatever the order in the source', () => {
  const row = (value: number) => new Array(784).fill(value);
  const rows = [row(1), [], row(2), row(1), row(3), row(4)];
  const others = Array.from({ length: 4 }, (_, i) => row(10 + i));
  const contents = (data: number[][][]) => draw(data, 3, 1).map(({ path, pixels }) => [path.split('/')[0], pixels[0]]);
  const drawn = contents([rows, others]);
  assert.is(new Set(drawn.map(([, value]) => value)).size, 8);
  assert.equal(
    drawn.map(([folder]) => folder),
    ['test', 'test', ...new Array(6).fill('train')],
  );
  assert.equal(contents([rows.toReversed(), others]).sort(), drawn.sort());
  assert.throws(() => draw([rows], 4, 1), '4 different pictures of T-shirt, not 5');
});

it('are the tar whose digest the Dataset names', async () => {
  const dataset = parse(await readFile(join(import.meta.dirname, 'dataset.yaml'), 'utf8'));
  assert.is(digestOf(await fashionTar()), dataset.spec.source.http.digest);
});

it('are made once, again if the cached file is damaged, and refused if they are not what is wanted', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'fovea-pictures-'));
  const content = Buffer.from('tar');
  const wanted = digestOf(content);
  let made = 0;
  const make = async () => {
    made += 1;
    return content;
  };
  const get = () => cachedTar(wanted, folder, make);
  try {
    assert.equal(await get(), content);
    assert.equal(await get(), content);
    assert.is(made, 1);
    const [file] = await readdir(folder);
    await writeFile(join(folder, file!), 'damaged');
    assert.equal(await get(), content);
    assert.equal(await readFile(join(folder, file!)), content);
    assert.equal(await readdir(folder), [file]);
    const error = await cachedTar(`sha256:${'0'.repeat(64)}`, folder, async () => content).catch((e) => e);
    assert.match(error.message, 'and not sha256:000');
  } finally {
    await rm(folder, { recursive: true });
  }
});

it('are served whole or from where a download broke off', async () => {
  const server = serveFile('/a.tar', Buffer.from('0123456789'), 'sha256:x');
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/a.tar`;
  const get = async (headers: Record<string, string>) => {
    const response = await fetch(url, { headers });
    return [response.status, response.headers.get('content-range'), await response.text()];
  };
  try {
    assert.equal(await get({}), [200, null, '0123456789']);
    assert.equal(await get({ range: 'bytes=7-' }), [206, 'bytes 7-9/10', '789']);
    assert.equal(await get({ range: 'bytes=2-3' }), [206, 'bytes 2-3/10', '23']);
    assert.equal(await get({ range: 'bytes=-4' }), [206, 'bytes 6-9/10', '6789']);
    assert.equal(await get({ range: 'bytes=7-', 'if-range': '"other"' }), [200, null, '0123456789']);
    assert.equal(await get({ range: 'bytes=10-' }), [416, 'bytes */10', '']);
    assert.is((await fetch(`${url}x`)).status, 404);
    assert.is((await fetch(url, { method: 'POST' })).status, 405);
  } finally {
    server.close();
    server.closeAllConnections();
  }
});

it('are left to another process that serves the same file at the same port, and served here once it ends', async () => {
  const content = Buffer.from('tar');
  const first = serveFile('/a.tar', content, 'sha256:x');
  first.listen(0, '127.0.0.1');
  await once(first, 'listening');
  const url = `http://127.0.0.1:${(first.address() as AddressInfo).port}/a.tar`;
  const text = async () => (await fetch(url).catch(() => undefined))?.text();
  const refused = await serveAt(url, Buffer.from('other'), 'sha256:y').catch((error) => error);
  assert.match(refused.message, /served at 127\.0\.0\.1:\d+, which cannot be used .*EADDRINUSE.* end the program/);

  const stop = await serveAt(url, content, 'sha256:x');
  assert.is(await text(), 'tar');
  first.close();
  first.closeAllConnections();
  let answer: string | undefined;
  while (answer === undefined) answer = await text();
  assert.is(answer, 'tar');
  stop();
  assert.is(await text(), undefined);
});

it.run();
