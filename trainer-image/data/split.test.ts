import { createHash } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { SplitName } from '../contract.ts';
import { assignSplits, countSplits, type Member, orderSplit, type SplitOptions } from './split.ts';
import { thrownBy } from './test-pictures.ts';

const it = suite('split');

const options: SplitOptions = { type: 'Random', seed: 0, validationPercent: 10, testPercent: 20, stratified: true };

function member(label: number, name: string | number, given?: SplitName): Member {
  const digest = `sha256:${createHash('sha256').update(`${label}/${name}`).digest('hex')}`;
  return { path: `${given ? `${given}/` : ''}${label}/${name}`, digest, label, given };
}

/** `sizes[label]` members of each class. */
function membersOf(sizes: number[], given?: SplitName): Member[] {
  return sizes.flatMap((size, label) => Array.from({ length: size }, (_, i) => member(label, i, given)));
}

const namesOf = (members: { label: number }[]) => [...new Set(members.map(({ label }) => `class${label}`))];

function shares(members: Member[], changed: Partial<SplitOptions> = {}) {
  const classes = namesOf(members);
  return countSplits(members, assignSplits(members, { ...options, ...changed }, classes), classes);
}

it('each class gives its exact share to each split', () => {
  assert.equal(shares(membersOf([10, 20, 100])), { train: [7, 14, 70], validation: [1, 2, 10], test: [2, 4, 20] });
});

it('shares that are no whole samples add up to the share of all', () => {
  const { validation, test } = shares(membersOf([5, 7, 7, 7, 7, 7]));
  assert.is(
    validation.reduce((a, b) => a + b),
    4,
  );
  assert.is(
    test.reduce((a, b) => a + b),
    8,
  );
  // 0.7 of a sample is rounded up before 0.5 is, and of equal ones the first.
  assert.equal(validation, [0, 1, 1, 1, 1, 0]);
});

it('a class of few pictures keeps one to train on', () => {
  const { train } = shares(membersOf([1, 2, 300]), { validationPercent: 49, testPercent: 50 });
  assert.equal(train.slice(0, 2), [1, 1]);
  assert.equal(shares(membersOf([1, 100])).train[0], 1);
});

it('without stratification the share is of all, whatever the class', () => {
  const sum = (counts: number[]) => counts.reduce((a, b) => a + b);
  const drawn = [0, 1, 2, 3].map((seed) => shares(membersOf([50, 150]), { stratified: false, seed }));
  for (const { train, validation, test } of drawn) {
    assert.equal([sum(train), sum(validation), sum(test)], [140, 20, 40]);
  }
  assert.ok(new Set(drawn.map(({ validation }) => validation[0])).size > 1, 'a draw from each class would give 5 each');
});

it('the same members give the same splits in any order', () => {
  const members = membersOf([30, 40]);
  const splits = assignSplits(members, options, ['a', 'b']);
  const reversed = assignSplits([...members].reverse(), options, ['a', 'b']).reverse();
  assert.equal(reversed, splits);
  assert.not.equal(assignSplits(members, { ...options, seed: 1 }, ['a', 'b']), splits);
});

it('files that are added move only the borders of the splits', () => {
  const members = membersOf([100, 100]);
  const more = [...members, ...Array.from({ length: 10 }, (_, i) => member(0, `new-${i}`))];
  const before = assignSplits(members, options, ['a', 'b']);
  const after = assignSplits(more, options, ['a', 'b']);
  const moved = members.filter((_, i) => before[i] !== after[i]);
  // Ten pictures more: borders move by one (validation) and two (test), and each new one below a border pushes one across.
  assert.ok(moved.length <= 10, `${moved.length} of 200 members moved`);
  assert.equal(
    moved.filter(({ label }) => label === 1),
    [],
  );
  const between = members.filter((_, i) => before[i] !== 'train' && after[i] !== 'train' && before[i] !== after[i]);
  assert.equal(between, []);
});

it('folders give the split, and validation is drawn from train only where there is no folder for it', () => {
  const trained = membersOf([20, 40], 'train');
  const tested = membersOf([5, 5], 'test');
  const drawn = shares([...trained, ...tested], { type: 'Folders' });
  assert.equal(drawn, { train: [18, 36], validation: [2, 4], test: [5, 5] });
  const given = shares([...trained, ...tested, ...membersOf([3, 3], 'validation')], { type: 'Folders' });
  assert.equal(given, { train: [20, 40], validation: [3, 3], test: [5, 5] });
});

it('the training split is ordered by a hash of the content, the others by path', () => {
  const members = membersOf([50, 50]);
  const indices = members.map((_, i) => i);
  const order = orderSplit(members, indices, 'train', 0);
  assert.equal(
    [...order].sort((a, b) => a - b),
    indices,
  );
  const ofFirst = order.slice(0, 50).filter((i) => members[i]!.label === 0).length;
  assert.ok(ofFirst > 10 && ofFirst < 40, `${ofFirst} of the first 50 are of class 0`);
  const byPath = orderSplit(members, order, 'test', 0).map((i) => members[i]!.path);
  assert.equal(byPath, [...byPath].sort());
});

it('a class with nothing to train on is named with what to do', async () => {
  const onlyTested = [...membersOf([3], 'train'), member(1, 0, 'test')];
  const error = await thrownBy(() => assignSplits(onlyTested, { ...options, type: 'Folders' }, ['cat', 'dog']));
  assert.is(error.reason, 'EmptyClass');
  assert.is(
    error.message,
    'no picture of dog falls into the training split: add pictures, or keep split.stratified true',
  );
  const unusable = await thrownBy(() => assignSplits(membersOf([3]), options, ['cat', 'dog']));
  assert.is(unusable.message, 'the folder of dog holds no usable picture: add some, or remove the folder');
});

it.run();
