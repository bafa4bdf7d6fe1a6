/** `prepare`: from a source of pictures to a packed dataset. The same pictures and options give the same digest. */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { Context } from '../command.ts';
import { type DatasetIndex, type PrepareResult, type PrepareTask, SPLITS, type SplitName } from '../contract.ts';
import { TrainerError, UserError } from '../errors.ts';
import { artifactOf, uriOf } from '../store.ts';
import { mapAhead } from './concurrency.ts';
import { inspect, type Picture, type Quarantined } from './inspect.ts';
import { type Layout, readLayout } from './layout.ts';
import { channelsOf } from './preprocess.ts';
import { countDuplicates, countFormats, describeDuplicates, groupDuplicates, type Report } from './report.ts';
import { type PackedSample, packShards } from './shards.ts';
import { byPath, openSource, type Source } from './source.ts';
import { assignSplits, countSplits, type Member, orderSplit } from './split.ts';
import { meanAndStd } from './statistics.ts';

const EXTENSIONS = { jpeg: 'jpg', png: 'png', webp: 'webp' };
/** Files of the quarantine that a result names. */
const NAMED_FILES = 10;
/** Files of the quarantine that are said with their cause while they are found. */
const NOTED_FILES = 20;
/** Pictures read ahead while shards are written. */
const READ_AHEAD = 16;

export async function run(task: PrepareTask, context: Context): Promise<PrepareResult> {
  const { scratch, signal, reporter } = context;
  const onProgress = (stage: string, percent: number) => reporter.report({ stage, percent });
  const source = await openSource(task.source, { scratch, signal, onProgress });
  try {
    return await prepare(task, source, context);
  } finally {
    await source.close();
  }
}

/** A picture that is part of the dataset or a copy of one. */
interface Candidate extends Member {
  picture: Picture;
}

async function prepare(task: PrepareTask, source: Source, context: Context): Promise<PrepareResult> {
  const { store } = context;
  const layout = readLayout(
    source.files.map(({ path }) => path),
    source.folders,
    { splitType: task.split.type, classes: task.classes, packed: source.packed },
  );
  const { classes } = layout;
  const inspection = await inspectSource(task, source, layout, context);
  const quarantined: Quarantined[] = [...source.refused, ...inspection.quarantined].sort(byPath);
  const files = inspection.pictures.length + quarantined.length;
  checkQuarantine(quarantined, files, task.quarantine.max);

  const labels = new Map(classes.map((name, label) => [name, label]));
  const candidates = inspection.pictures.map(
    (picture): Candidate => ({
      picture,
      path: picture.file.path,
      digest: picture.digest,
      label: labels.get(picture.className)!,
      given: layout.placeOf(picture.file.path)!.split,
    }),
  );
  const copies = groupDuplicates(candidates);
  const dropped = new Set(task.duplicates === 'Drop' ? copies.flatMap((group) => group.slice(1)) : []);
  const members = candidates.filter((candidate) => !dropped.has(candidate));
  const splits = assignSplits(members, task.split, classes);
  const counts = countSplits(members, splits, classes);
  const duplicates = describeDuplicates(copies, new Map(members.map((member, i) => [member, splits[i]!])), classes);
  const classCounts = classes.map((name, index) => ({
    name,
    index,
    train: counts.train[index]!,
    validation: counts.validation[index]!,
    test: counts.test[index]!,
  }));

  const report: Report = {
    format: 'fovea.dev/dataset-report/v1',
    files,
    classes: classCounts,
    formats: countFormats(inspection),
    quarantined,
    ignored: [...source.ignored, ...inspection.ignored].sort(),
    duplicates,
  };
  const statistics = meanAndStd(
    members.filter((_, i) => splits[i] === 'train').map(({ picture }) => picture.statistics),
    channelsOf(task.image.colour),
  );
  const reportBlob = await store.putBytes(canonicalize(report)!);
  const index: DatasetIndex = {
    format: 'fovea.dev/dataset/v1',
    classes,
    colour: task.image.colour,
    statistics,
    splits: await packSplits(members, splits, counts, task.split.seed, context),
    report: reportBlob.digest,
  };
  const indexBlob = await store.putBytes(canonicalize(index)!);
  return {
    kind: 'prepare',
    artifact: artifactOf(indexBlob),
    samples: members.length,
    classes: classCounts,
    classCount: classes.length,
    quarantined: { count: quarantined.length, first: quarantined.slice(0, NAMED_FILES) },
    statistics,
    duplicates: countDuplicates(duplicates),
    reportURI: uriOf(reportBlob.digest),
  };
}

async function inspectSource(task: PrepareTask, source: Source, layout: Layout, { signal, reporter }: Context) {
  let noted = 0;
  return inspect(source.files, {
    colour: task.image.colour,
    limits: task.image,
    classOf: (path) => layout.placeOf(path)?.className,
    signal,
    onProgress: (done, total) => reporter.report({ stage: 'inspecting', percent: (100 * done) / total }),
    onQuarantined(path, message) {
      noted += 1;
      if (noted <= NOTED_FILES) reporter.note(`set aside ${path}: ${message}`);
      if (noted === NOTED_FILES) reporter.note('more files set aside are named in the report only');
    },
  });
}

/** Throws UserError TooManyQuarantined. */
function checkQuarantine(quarantined: Quarantined[], files: number, max: number | string): void {
  const allowed = typeof max === 'number' ? max : Math.floor((files * Number.parseInt(max, 10)) / 100);
  if (quarantined.length <= allowed) return;
  const first = quarantined.slice(0, NAMED_FILES).map(({ path, reason }) => `${path} (${reason})`);
  const more = quarantined.length > NAMED_FILES ? `, and ${quarantined.length - NAMED_FILES} more` : '';
  throw new UserError(
    'TooManyQuarantined',
    `${quarantined.length} of ${files} files cannot be used, and quarantine.max ${max} allows ${allowed}: ${first.join(', ')}${more}`,
  );
}

async function packSplits(
  members: Candidate[],
  splits: SplitName[],
  counts: Record<SplitName, number[]>,
  seed: number,
  { store, signal, reporter }: Context,
): Promise<DatasetIndex['splits']> {
  const packed = {} as DatasetIndex['splits'];
  let done = 0;
  for (const split of SPLITS) {
    const indices = members.map((_, i) => i).filter((i) => splits[i] === split);
    const order = orderSplit(members, indices, split, seed);
    const samples = mapAhead(order.entries(), READ_AHEAD, async ([position, i]): Promise<PackedSample> => {
      signal.throwIfAborted();
      const { picture, path, label } = members[i]!;
      const bytes = await loadUnchanged(picture);
      reporter.report({ stage: 'packing', percent: (100 * ++done) / members.length });
      const key = `${split}-${String(position).padStart(8, '0')}`;
      return { key, path, label, bytes, extension: EXTENSIONS[picture.format] };
    });
    packed[split] = { samples: order.length, perClass: counts[split], shards: await packShards(store, samples) };
  }
  return packed;
}

/** Throws TrainerError SourceChanged if the file is not what was inspected: a retry starts from what is there then. */
async function loadUnchanged({ file, digest }: Picture): Promise<Buffer> {
  const changed = (cause?: unknown) =>
    new TrainerError('SourceChanged', `${file.path} was changed while the dataset was being prepared`, { cause });
  const bytes = await file.load().catch((error) => {
    throw changed(error);
  });
  if (`sha256:${createHash('sha256').update(bytes).digest('hex')}` !== digest) throw changed();
  return bytes;
}
