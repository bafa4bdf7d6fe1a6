/** What `prepare` found, in full: a blob of its own, since a status has room for a few lines only. */
import type { SplitName } from '../contract.ts';
import type { Inspection, Quarantined } from './inspect.ts';
import type { Member } from './split.ts';

export interface Report {
  format: 'fovea.dev/dataset-report/v1';
  /** Files that were looked at, without those ignored. */
  files: number;
  classes: { name: string; index: number; train: number; validation: number; test: number }[];
  /** Pictures of each format, before duplicates are dropped. */
  formats: Record<string, number>;
  quarantined: Quarantined[];
  /** Files that no picture was expected of: hidden ones, and others outside the classes' folders. */
  ignored: string[];
  duplicates: Duplicate[];
}

/** Files of one content. */
export interface Duplicate {
  digest: string;
  /** All of them, by path; those without a split were dropped. */
  files: { path: string; class: string; split?: SplitName }[];
}

export interface DuplicateCounts {
  /** Copies beyond the first of each content. */
  count: number;
  /** Copies that lie in another split than the first of their content. */
  acrossSplits: number;
}

/** The files of each content that there is more than once, ordered by the first's path. `members` ascend by path. */
export function groupDuplicates(members: readonly Member[]): Member[][] {
  const groups = new Map<string, Member[]>();
  for (const member of members) {
    const group = groups.get(member.digest);
    if (group) group.push(member);
    else groups.set(member.digest, [member]);
  }
  return [...groups.values()].filter((group) => group.length > 1);
}

export function describeDuplicates(
  groups: Member[][],
  splitOf: ReadonlyMap<Member, SplitName>,
  classes: readonly string[],
): Duplicate[] {
  return groups.map((group) => ({
    digest: group[0]!.digest,
    files: group.map((member) => {
      const split = splitOf.get(member);
      return { path: member.path, class: classes[member.label]!, ...(split && { split }) };
    }),
  }));
}

export function countDuplicates(duplicates: readonly Duplicate[]): DuplicateCounts {
  let count = 0;
  let acrossSplits = 0;
  for (const { files } of duplicates) {
    count += files.length - 1;
    const first = files[0]!.split;
    acrossSplits += files.filter(({ split }) => split !== undefined && split !== first).length;
  }
  return { count, acrossSplits };
}

export function countFormats({ pictures }: Inspection): Record<string, number> {
  const formats: Record<string, number> = {};
  for (const { format } of pictures) formats[format] = (formats[format] ?? 0) + 1;
  return formats;
}
