import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { philox, randomStream } from './philox.ts';

const it = suite('philox');

const words = (key: [number, number], counter: [number, number, number, number]) => {
  const out = new Uint32Array(4);
  philox(out, key, counter);
  return [...out].map((w) => w.toString(16).padStart(8, '0')).join(' ');
};

it('gives the known answers of Random123', () => {
  assert.is(words([0, 0], [0, 0, 0, 0]), '6627e8d5 e169c58d bc57ac4c 9b00dbd8');
  const ones = 0xffffffff;
  assert.is(words([ones, ones], [ones, ones, ones, ones]), '408f276d 41c83b0e a20bc7c6 6d5451fd');
  const pi = words([0xa4093822, 0x299f31d0], [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344]);
  assert.is(pi, 'd16cfe09 94fdcceb 5001e420 24126ea1');
});

it('gives a stream that depends on seed, stream and both counters, and on nothing else', () => {
  const first = (...args: [number, number, number, number]) => randomStream(...args).uniform();
  assert.is(first(1, 2, 3, 4), first(1, 2, 3, 4));
  const all = [first(1, 2, 3, 4), first(0, 2, 3, 4), first(1, 0, 3, 4), first(1, 2, 0, 4), first(1, 2, 3, 0)];
  assert.is(new Set(all).size, 5);
});

it('draws normals of mean 0 and variance 1, and uniforms within [0, 1)', () => {
  const random = randomStream(5, 1, 0, 0);
  const normals = Array.from({ length: 20_000 }, () => random.normal());
  const mean = normals.reduce((a, b) => a + b) / normals.length;
  const variance = normals.reduce((a, b) => a + (b - mean) ** 2, 0) / normals.length;
  assert.ok(Math.abs(mean) < 0.03 && Math.abs(variance - 1) < 0.03, `${mean} ${variance}`);
  for (let i = 0; i < 1000; i++) {
    const value = random.uniform();
    assert.ok(value >= 0 && value < 1);
  }
});

it.run();
