import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type DownloadLimits, download } from './download.ts';
import { temporaryFolder, thrownBy } from './test-pictures.ts';

const it = suite('download');
const servers: Server[] = [];

it.after.each(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

const content = Buffer.from(Array.from({ length: 300_000 }, (_, i) => Math.imul(i, 2654435761) >>> 24));
const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const limits: DownloadLimits = { maxBytes: 1_000_000, attempts: 3, backoffMilliseconds: 1, stallMilliseconds: 10_000 };

/** `answer` is told the how-manieth request it is, from 0. Ranges asked for are kept. */
async function serve(answer: (response: ServerResponse, n: number, request: IncomingMessage) => void) {
  const ranges: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    ranges.push(request.headers.range);
    answer(response, ranges.length - 1, request);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  servers.push(server);
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/a.tar`, ranges };
}

/** Woken when the client has that share of the whole, in percent. What it was sent and had not read is lost to it in a cut. */
let waiting: { percent: number; wake: () => void }[] = [];
function onProgress(_: string, percent: number): void {
  const woken = waiting.filter((one) => one.percent <= percent);
  waiting = waiting.filter((one) => one.percent > percent);
  for (const { wake } of woken) wake();
}

/** Sends what was asked for, or the first `size` bytes of it and cuts the connection when they have arrived. */
function send(
  response: ServerResponse,
  request: IncomingMessage,
  { size = Infinity, etag = '"1"', bytes = content } = {},
) {
  const asked = etag !== '' && request.headers['if-range'] === etag ? request.headers.range : undefined;
  const start = Number(/^bytes=(\d+)-$/.exec(asked ?? '')?.[1] ?? 0);
  response.writeHead(asked ? 206 : 200, {
    'content-length': bytes.length - start,
    ...(etag && { etag }),
    ...(asked && { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` }),
  });
  const part = bytes.subarray(start, Math.min(bytes.length, start + size));
  if (start + part.length === bytes.length) return void response.end(part);
  waiting.push({ percent: (100 * (start + part.length)) / bytes.length, wake: () => response.destroy() });
  response.write(part);
}

function fetchInto(
  url: string,
  options: { digest?: string; limits?: Partial<DownloadLimits>; signal?: AbortSignal } = {},
) {
  const scratch = temporaryFolder();
  const context = { scratch, signal: options.signal ?? new AbortController().signal, onProgress };
  const done = download(url, options.digest ?? digestOf(content), context, { ...limits, ...options.limits });
  return { scratch, done };
}

async function assertDownloaded(url: string, changed: Partial<DownloadLimits> = {}) {
  const { scratch, done } = fetchInto(url, { limits: changed });
  const { path, remove } = await done;
  assert.ok(readFileSync(path).equals(content), 'the content is whole');
  await remove();
  assert.equal(readdirSync(scratch), []);
}

it('brings the file, through redirects too', async () => {
  const { url, ranges } = await serve((response, _, request) => {
    if (request.url === '/moved') send(response, request);
    else response.writeHead(302, { location: '/moved' }).end();
  });
  await assertDownloaded(url);
  assert.is(ranges.length, 2);
});

it('goes on where a connection was cut', async () => {
  const { url, ranges } = await serve((response, n, request) =>
    send(response, request, { size: n < 3 ? 70_000 : Infinity }),
  );
  await assertDownloaded(url);
  assert.equal(ranges, [undefined, 'bytes=70000-', 'bytes=140000-', 'bytes=210000-']);
});

it('starts again where the server names no version that could be gone on with', async () => {
  for (const etag of ['', 'W/"weak"']) {
    const { url, ranges } = await serve((response, n, request) =>
      send(response, request, { etag, size: n < 2 ? 70_000 : Infinity }),
    );
    await assertDownloaded(url);
    assert.equal(ranges, [undefined, undefined, undefined]);
  }
});

it('takes the whole new file where it was changed meanwhile', async () => {
  const old = Buffer.alloc(content.length, 'old');
  const { url, ranges } = await serve((response, n, request) =>
    n === 0 ? send(response, request, { bytes: old, size: 70_000 }) : send(response, request, { etag: '"2"' }),
  );
  await assertDownloaded(url);
  assert.equal(ranges, [undefined, 'bytes=70000-']);
});

it('does not put together what the server sends from another place than was asked for', async () => {
  const { url, ranges } = await serve((response, n, request) => {
    if (n === 0) send(response, request, { size: 70_000 });
    else if (n === 1) response.writeHead(206, { 'content-range': 'bytes 0-9/300000', etag: '"1"' }).end('0123456789');
    else send(response, request);
  });
  await assertDownloaded(url);
  assert.equal(ranges, [undefined, 'bytes=70000-', undefined]);
});

it('a connection on which nothing comes counts as cut', async () => {
  const { url, ranges } = await serve((response, n, request) => {
    if (n > 0) return send(response, request);
    response.writeHead(200, { 'content-length': content.length, etag: '"1"' });
    response.write(content.subarray(0, 1000));
  });
  await assertDownloaded(url, { stallMilliseconds: 100 });
  assert.equal(ranges, [undefined, 'bytes=1000-']);
});

it('tries again after answers that may pass, and says the last one when it gives up', async () => {
  const passing = await serve((response, n, request) => {
    if (n < 2) response.writeHead([503, 429][n]!).end();
    else send(response, request);
  });
  await assertDownloaded(passing.url);
  const broken = await serve((response) => response.writeHead(502).end());
  const { scratch, done } = fetchInto(broken.url);
  const error = await thrownBy(() => done);
  assert.is(error.reason, 'DownloadFailed');
  assert.is(error.message, `${broken.url} could not be downloaded: HTTP 502 Bad Gateway`);
  assert.is(error.exitCode, 1);
  assert.is(broken.ranges.length, limits.attempts);
  assert.equal(readdirSync(scratch), []);
});

it('does not ask again where it was refused', async () => {
  const { url, ranges } = await serve((response) => response.writeHead(404).end());
  const error = await thrownBy(() => fetchInto(url).done);
  assert.is(error.message, `${url} was refused: HTTP 404 Not Found`);
  assert.is(error.reason, 'DownloadRefused');
  assert.is(error.exitCode, 64);
  assert.is(ranges.length, 1);
});

it('says why there is no connection', async () => {
  const { url } = await serve(() => {});
  const server = servers.pop()!;
  await new Promise((resolve) => server.close(resolve));
  assert.match(
    (await thrownBy(() => fetchInto(url).done)).message,
    /could not be downloaded: fetch failed \(.*ECONNREFUSED/,
  );
});

it('another content than the digest names is refused with both digests', async () => {
  const { url } = await serve((response, _, request) => send(response, request));
  const digest = digestOf(Buffer.from('something else'));
  const { scratch, done } = fetchInto(url, { digest });
  const error = await thrownBy(() => done);
  assert.is(error.reason, 'DigestMismatch');
  assert.is(error.exitCode, 64);
  assert.match(
    error.message,
    `${url} (300000 bytes) has the digest ${digestOf(content)}, and source.digest says ${digest}`,
  );
  assert.equal(readdirSync(scratch), []);
});

it('takes no more bytes than allowed', async () => {
  const { url } = await serve((response) => response.writeHead(200).end(content));
  const { scratch, done } = fetchInto(url, { limits: { maxBytes: 100_000 } });
  assert.is((await thrownBy(() => done)).message, `${url} has more than the 100000 bytes that are allowed`);
  assert.equal(readdirSync(scratch), []);
});

it('stops when told to, and leaves nothing', async () => {
  const stop = new AbortController();
  const { url } = await serve((response) => {
    response.writeHead(200, { 'content-length': content.length });
    response.write(content.subarray(0, 1000), () => stop.abort(new Error('told to stop')));
  });
  const { scratch, done } = fetchInto(url, { signal: stop.signal });
  let message = '';
  await done.catch((error: Error) => {
    message = error.message;
  });
  assert.is(message, 'told to stop');
  assert.equal(readdirSync(scratch), []);
});

it.run();
