import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { classifyAll, compare, readPredictions } from './classification.ts';
import { drawInText, sideBySide } from './drawing.ts';

const it = suite('quickstart classification');

const picture = (n: number, className: string) => ({ path: `test/${n}.png`, className, png: Buffer.from(className) });

/** Answers each picture with its own bytes as the label; `Broken` with 500. */
async function service() {
  const server = createServer(async (request, response) => {
    const label = Buffer.concat(await request.toArray()).toString();
    response.statusCode = label === 'Broken' ? 500 : 200;
    response.end(JSON.stringify({ predictions: [{ label, probability: 0.9 }] }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/services/a` };
}

it('asks about every picture and keeps the answers in their order', async () => {
  const { server, url } = await service();
  const pictures = Array.from({ length: 50 }, (_, n) => picture(n, `class${n}`));
  let last = 0;
  try {
    const classified = await classifyAll(url, pictures, (done) => {
      last = done;
    });
    assert.equal(
      classified.map(({ label }) => label),
      pictures.map(({ className }) => className),
    );
    assert.is(last, 50);
    const error = await classifyAll(url, [picture(7, 'Broken')], () => {}).catch((e) => e);
    assert.match(error.message, 'test/7.png was answered 500');
  } finally {
    server.close();
    server.closeAllConnections();
  }
});

it('compares with the truth and with the export, and misses no picture', () => {
  const lines = '{"path":"test/0.png","label":0,"predicted":0}\n{"path":"test/1.png","label":1,"predicted":0}\n';
  const predictions = readPredictions(lines, ['Bag', 'Coat']);
  const classified = [picture(0, 'Bag'), picture(1, 'Coat')].map((p) => ({ picture: p, label: 'Bag', probability: 1 }));
  assert.equal(compare(classified, predictions), { total: 2, accuracy: 0.5, agreement: 1 });
  const unknown = [{ picture: picture(9, 'Bag'), label: 'Bag', probability: 1 }];
  assert.throws(() => compare(unknown, predictions), 'no prediction for test/9.png');
});

it('draws two pixels a character, with captions below', () => {
  const lines = drawInText(Uint8Array.from([255, 0, 255, 0]), 2);
  assert.equal(lines, ['█ ']);
  assert.equal(
    sideBySide(
      [
        { lines, caption: 'Bag' },
        { lines, caption: 'C' },
      ],
      2,
    ),
    ['█   █ ', 'Ba  C'],
  );
});

it.run();
