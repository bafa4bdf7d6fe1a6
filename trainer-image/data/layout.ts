/** ImageFolder: which class, and where the split is given by folders which split, a path belongs to. Pure. */
import type { SplitName } from '../contract.ts';
import { UserError } from '../errors.ts';

const SPLIT_FOLDERS: ReadonlyMap<string, SplitName> = new Map([
  ['train', 'train'],
  ['val', 'validation'],
  ['validation', 'validation'],
  ['test', 'test'],
]);

/** More would be a layout misread, as where each picture has a folder of its own. */
const MAX_CLASSES = 10_000;
const MAX_CLASS_CHARACTERS = 253;

export interface Place {
  className: string;
  /** Only where folders give the split. */
  split: SplitName | undefined;
}

export interface LayoutOptions {
  splitType: 'Random' | 'Folders';
  /** The class names wanted; empty: those found. */
  classes: readonly string[];
  /** The source is a tar, and everything may lie in one folder that was packed along. */
  packed: boolean;
}

export interface Layout {
  /** In the order of label indices. */
  classes: string[];
  /** Undefined for what lies in no class's folder. */
  placeOf(path: string): Place | undefined;
}

/**
 * Reads the layout off the paths of files and of folders (empty ones count: a class without pictures should not vanish).
 * Throws UserError NoPictures, NoSplitFolders, SplitFoldersFound, OneClass, UnknownClass, EmptyClass or TooManyClasses.
 */
export function readLayout(files: string[], folders: string[], options: LayoutOptions): Layout {
  if (files.length === 0) {
    throw new UserError('NoPictures', `the source has no files: want a folder for each class, with pictures in it`);
  }
  const prefix = options.packed ? packedFolder(files, options.splitType) : '';
  const tops = topFolders([...files, ...folders.map((folder) => `${folder}/`)], prefix);
  const bySplit = options.splitType === 'Folders';
  if (bySplit && !tops.includes('train')) {
    throw new UserError(
      'NoSplitFolders',
      `split.type Folders wants a folder train/ beside val/ (or validation/) and test/; found ${listed(tops)}`,
    );
  }
  if (!bySplit && tops.length > 0 && tops.every((top) => SPLIT_FOLDERS.has(top)) && !tops.some(isIn(options.classes))) {
    throw new UserError(
      'SplitFoldersFound',
      `found ${listed(tops)}, which name splits and no classes: set split.type to Folders, or list them in classes`,
    );
  }
  const placeOf = (path: string): Place | undefined => {
    if (!path.startsWith(prefix)) return undefined;
    const segments = path.slice(prefix.length).split('/');
    if (!bySplit) return segments.length > 1 ? { className: nameOf(segments[0]!), split: undefined } : undefined;
    const split = SPLIT_FOLDERS.get(segments[0]!);
    return split && segments.length > 2 ? { className: nameOf(segments[1]!), split } : undefined;
  };
  const found = new Set<string>();
  for (const path of [...files, ...folders.map((folder) => `${folder}/`)]) {
    const place = placeOf(path);
    if (place) found.add(place.className);
  }
  return { classes: orderClasses([...found].sort(), options.classes, bySplit), placeOf };
}

/** Names that look alike are alike: macOS writes é as two characters, others as one. */
function nameOf(folder: string): string {
  return folder.normalize('NFC');
}

function isIn(names: readonly string[]): (name: string) => boolean {
  return (name) => names.includes(name);
}

function topFolders(paths: string[], prefix: string): string[] {
  const tops = new Set<string>();
  for (const path of paths) {
    const slash = path.indexOf('/', prefix.length);
    if (path.startsWith(prefix) && slash > 0) tops.add(path.slice(prefix.length, slash));
  }
  return [...tops].sort();
}

/** `pictures/` where a tar was made of a folder of that name: everything lies in it, and the classes only below. */
function packedFolder(files: string[], splitType: 'Random' | 'Folders'): string {
  let prefix = '';
  for (;;) {
    const tops = topFolders(files, prefix);
    const inner = `${prefix}${tops[0]}/`;
    const holdsAll = tops.length === 1 && files.every((path) => path.startsWith(inner));
    if (!holdsAll) return prefix;
    if (splitType === 'Folders' && SPLIT_FOLDERS.has(tops[0]!)) return prefix;
    // One class alone is no dataset, so a folder with folders in it is none; files beside those, as a README, say nothing.
    if (splitType === 'Random' && !files.some((path) => path.indexOf('/', inner.length) > 0)) return prefix;
    prefix = inner;
  }
}

function orderClasses(found: string[], wanted: readonly string[], bySplit: boolean): string[] {
  const where = bySplit ? 'train/, val/ (or validation/) or test/' : 'the source';
  if (found.length === 0) {
    throw new UserError(
      'NoPictures',
      `no picture lies in a class's folder: want ${where} to hold a folder for each class`,
    );
  }
  const long = found.find((name) => name.length > MAX_CLASS_CHARACTERS);
  if (long) {
    throw new UserError(
      'InvalidClass',
      `class folder ${long.slice(0, 60)}… has a name of more than ${MAX_CLASS_CHARACTERS} characters`,
    );
  }
  const classes = wanted.length > 0 ? wanted.map(nameOf) : found;
  if (new Set(classes).size < classes.length) {
    throw new UserError(
      'InvalidClass',
      `classes: ${classes.find((name, i) => classes.indexOf(name) < i)} is listed twice`,
    );
  }
  const unknown = found.filter((name) => !classes.includes(name));
  if (unknown.length > 0) {
    throw new UserError(
      'UnknownClass',
      `found ${listed(unknown)}, not listed in classes: add them there, or take the folders out`,
    );
  }
  const absent = classes.filter((name) => !found.includes(name));
  if (absent.length > 0) {
    throw new UserError('EmptyClass', `classes: there is no folder ${listed(absent)}; found ${listed(found)}`);
  }
  if (classes.length === 1) {
    throw new UserError(
      'OneClass',
      `found the class folder ${listed(found)} alone: want at least two folders in ${where}, a class each`,
    );
  }
  if (classes.length > MAX_CLASSES) {
    throw new UserError(
      'TooManyClasses',
      `found ${classes.length} class folders, more than ${MAX_CLASSES}: is a class's folder ${listed(found)}?`,
    );
  }
  return classes;
}

/** `cat/, dog/ and 3 more` */
function listed(names: string[], most = 5): string {
  if (names.length === 0) return 'no folder';
  const shown = names.slice(0, most).map((name) => `${name.slice(0, 60)}/`);
  return names.length > most ? `${shown.join(', ')} and ${names.length - most} more` : shown.join(', ');
}
