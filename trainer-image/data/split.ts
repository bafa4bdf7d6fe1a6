/**
 * Dividing samples into train, validation and test. A sample's rank is a hash of the seed and its own content, so files that are
 * added move only the borders, and the same files give the same splits in any order. Pure.
 */
import { createHash } from 'node:crypto';
import { SPLITS, type SplitName } from '../contract.ts';
import { UserError } from '../errors.ts';

export interface Member {
  path: string;
  /** `sha256:<hex>` of the content. */
  digest: string;
  /** Class index. */
  label: number;
  /** Where folders give the split. */
  given: SplitName | undefined;
}

export interface SplitOptions {
  type: 'Random' | 'Folders';
  seed: number;
  validationPercent: number;
  testPercent: number;
  stratified: boolean;
}

/** The split of each member, in their order. Throws UserError EmptyClass if a class is left with nothing to train on. */
export function assignSplits(
  members: readonly Member[],
  options: SplitOptions,
  classes: readonly string[],
): SplitName[] {
  const splits: SplitName[] = members.map(({ given }) => given ?? 'train');
  const drawn = members.map((_, i) => i).filter((i) => splits[i] === 'train');
  const needsValidation = options.type === 'Random' || !splits.includes('validation');
  const shares = {
    validation: needsValidation ? options.validationPercent : 0,
    test: options.type === 'Random' ? options.testPercent : 0,
  };
  const groups = options.stratified ? classes.map((_, label) => drawn.filter(byLabel(members, label))) : [drawn];
  const sizes = groups.map((group) => group.length);
  const validation = quotas(sizes, shares.validation);
  const test = quotas(sizes, shares.test);
  groups.forEach((group, g) => {
    const ranked = rank(group, members, options.seed, 'split');
    // Something of each class is left to train on, however few there are.
    const forTest = Math.min(test[g]!, Math.max(0, ranked.length - 1));
    const forValidation = Math.min(validation[g]!, Math.max(0, ranked.length - 1 - forTest));
    // Validation is drawn from one end and test from the other, so that neither border moves the other.
    for (const i of ranked.slice(0, forValidation)) splits[i] = 'validation';
    for (const i of ranked.slice(ranked.length - forTest)) splits[i] = 'test';
  });
  checkClasses(members, splits, classes);
  return splits;
}

/** The training split's order: by a hash, so that each shard has all classes. The others are ordered by path. */
export function orderSplit(members: readonly Member[], indices: number[], split: SplitName, seed: number): number[] {
  if (split === 'train') return rank(indices, members, seed, 'order');
  return [...indices].sort((a, b) => compare(members[a]!.path, members[b]!.path));
}

/** Samples of each class in each split: `counts[split][label]`. */
export function countSplits(
  members: readonly Member[],
  splits: readonly SplitName[],
  classes: readonly string[],
): Record<SplitName, number[]> {
  const counts = Object.fromEntries(SPLITS.map((split) => [split, classes.map(() => 0)])) as Record<
    SplitName,
    number[]
  >;
  members.forEach(({ label }, i) => {
    counts[splits[i]!][label]! += 1;
  });
  return counts;
}

function byLabel(members: readonly Member[], label: number): (i: number) => boolean {
  return (i) => members[i]!.label === label;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** By a hash of seed, purpose and content; copies of one picture have one rank and stand side by side. */
function rank(indices: number[], members: readonly Member[], seed: number, purpose: string): number[] {
  const hash = (i: number) => createHash('sha256').update(`${purpose}:${seed}:${members[i]!.digest}`).digest('hex');
  return indices
    .map((i) => ({ i, hash: hash(i), path: members[i]!.path }))
    .sort((a, b) => compare(a.hash, b.hash) || compare(a.path, b.path))
    .map(({ i }) => i);
}

/**
 * `percent` of each group in whole samples, whose sum is `percent` of all, rounded: the largest remainders are rounded up
 * (Hamilton's method), the first groups where they are equal.
 */
function quotas(sizes: readonly number[], percent: number): number[] {
  const total = Math.round((sizes.reduce((sum, size) => sum + size, 0) * percent) / 100);
  // In hundredths of samples all numbers are integers, and no rounding error decides.
  const result = sizes.map((size) => Math.floor((size * percent) / 100));
  const remainders = sizes.map((size, i) => ({ i, rest: (size * percent) % 100 }));
  remainders.sort((a, b) => b.rest - a.rest || a.i - b.i);
  const missing = total - result.reduce((sum, quota) => sum + quota, 0);
  for (const { i } of remainders.slice(0, Math.max(0, missing))) result[i]! += 1;
  return result;
}

function checkClasses(members: readonly Member[], splits: readonly SplitName[], classes: readonly string[]): void {
  const { train } = countSplits(members, splits, classes);
  const empty = classes.filter((_, label) => train[label] === 0);
  if (empty.length === 0) return;
  const names = empty.slice(0, 5).join(', ') + (empty.length > 5 ? ` and ${empty.length - 5} more` : '');
  const has = classes.some((name, label) => empty.includes(name) && members.some((member) => member.label === label));
  throw new UserError(
    'EmptyClass',
    has
      ? `no picture of ${names} falls into the training split: add pictures, or keep split.stratified true`
      : `the folder of ${names} holds no usable picture: add some, or remove the folder`,
  );
}
