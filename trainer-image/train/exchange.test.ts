import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { layOutBuckets, shareOf } from './exchange.ts';

const it = suite('exchange');
const spec = (name: string, length: number) => ({ name, length });

it('gives each rank a contiguous share, the shares differing by at most one', () => {
  for (const [count, world] of [
    [16, 2],
    [17, 4],
    [5, 5],
    [128, 3],
    [3, 7],
  ] as const) {
    const shares = Array.from({ length: world }, (_, rank) => shareOf(count, rank, world));
    assert.is(shares[0]!.start, 0);
    assert.is(shares.at(-1)!.end, count);
    for (let rank = 1; rank < world; rank++) assert.is(shares[rank]!.start, shares[rank - 1]!.end);
    const sizes = shares.map(({ start, end }) => end - start);
    assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1, `${sizes}`);
  }
});

it('cuts gradients into buckets in their order, statistics and all else into the last', () => {
  const layout = layOutBuckets([spec('a', 20), spec('b', 100), spec('c', 5), spec('d', 7)], [spec('mean', 3)], 64);
  assert.equal(layout.buckets, [
    { start: 0, end: 144, parameters: 2 },
    { start: 144, end: 192, parameters: 3 },
  ]);
  assert.equal(layout.ranges.get('b'), { start: 32, end: 132, bucket: 0 });
  assert.equal(layout.ranges.get('mean'), { start: 176, end: 179, bucket: 1 });
  assert.is(layout.length, 192);
});

it.run();
