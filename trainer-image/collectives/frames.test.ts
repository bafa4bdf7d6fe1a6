import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { chunk, createFrameReader, encodeHeader, type Header, KIND, PIECE_BYTES, pieces } from './frames.ts';

const it = suite('frames of a ring');

const header: Header = { kind: KIND.REDUCE, operation: 3, step: 2, offset: 2 ** 40, length: 5 };

it('puts frames together however the bytes are cut', () => {
  const bytes = Buffer.concat([
    encodeHeader(header),
    Buffer.from('first'),
    encodeHeader({ ...header, kind: KIND.HEARTBEAT, length: 0 }),
    encodeHeader({ ...header, operation: 4 }),
    Buffer.from('other'),
  ]);
  for (let size = 1; size <= bytes.length; size++) {
    const got: [Header, string][] = [];
    const reader = createFrameReader((at) => {
      const target = new Uint8Array(at.length);
      return { target, done: () => got.push([at, Buffer.from(target).toString()]) };
    });
    for (let at = 0; at < bytes.length; at += size) reader.take(bytes.subarray(at, at + size));
    assert.equal(
      got.map(([{ kind, operation }, text]) => [kind, operation, text]),
      [
        [KIND.REDUCE, 3, 'first'],
        [KIND.HEARTBEAT, 3, ''],
        [KIND.REDUCE, 4, 'other'],
      ],
    );
    assert.equal(got[0]![0], header);
  }
});

it('gives back what comes too early, and takes it later', () => {
  let ready = false;
  let text = '';
  const reader = createFrameReader(({ length }) => {
    const target = new Uint8Array(length);
    return ready ? { target, done: () => (text = Buffer.from(target).toString()) } : undefined;
  });
  const rest = reader.take(Buffer.concat([encodeHeader(header), Buffer.from('early')]));
  assert.is(rest?.toString(), 'early');
  ready = true;
  assert.is(reader.take(rest!), undefined);
  assert.is(text, 'early');
});

it('refuses what is no header, unknown kinds, and payloads that are too long', () => {
  const take = (bytes: Buffer) => createFrameReader(() => undefined).take(bytes);
  assert.throws(() => take(Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n')), /no frame/);
  assert.throws(() => take(encodeHeader({ ...header, kind: 77 as never })), /unknown kind 77/);
  assert.throws(() => take(encodeHeader({ ...header, length: PIECE_BYTES + 1 })), /of at most/);
  assert.throws(() => take(encodeHeader({ ...header, kind: KIND.HEARTBEAT })), /with 5 bytes/);
});

it('divides any length among any number of ranks without gap or overlap', () => {
  for (const [length, world] of [
    [0, 3],
    [2, 5],
    [7, 3],
    [1000, 8],
  ] as const) {
    let at = 0;
    for (let rank = 0; rank < world; rank++) {
      const { start, end } = chunk(length, world, rank);
      assert.is(start, at);
      at = end;
    }
    assert.is(at, length);
    assert.equal(chunk(length, world, -1), chunk(length, world, world - 1));
  }
  const cut = [...pieces(10, 10 + PIECE_BYTES, 4)];
  assert.is(cut.length, 4);
  assert.is(cut.at(-1)!.end, 10 + PIECE_BYTES);
});

it.run();
