/** A Dataset's run: its task, and its status from a result. */
import {
  Classes,
  Duplicates,
  ImageBounds,
  Layout,
  type PrepareTask,
  Quarantine,
  Split,
} from '../../trainer-image/contract.ts';
import { checkSpec } from '../api/check.ts';
import type { Dataset } from '../api/dataset.ts';
import { SOURCE_DIR } from '../manifests/pod.ts';
import { withDefaults } from '../manifests/resources.ts';
import { decimal } from './decimal.ts';
import type { RunKind } from './run.ts';

/** Frozen when a run starts. */
export interface DatasetResolved {
  image: string;
  classes: string[];
  layout: PrepareTask['layout'];
  split: PrepareTask['split'];
  bounds: PrepareTask['image'];
  quarantine: PrepareTask['quarantine'];
  duplicates: PrepareTask['duplicates'];
}

export const DATASET: RunKind<Dataset, DatasetResolved> = {
  component: 'dataset',
  doneReason: 'Packed',
  extra: [],
  rerun: 'OnSpecChange',
  check: (dataset) => checkSpec('Dataset', dataset),
  resolve: ({ spec }, options) => ({
    image: options.trainerImage,
    classes: Classes.parse(spec.classes),
    layout: Layout.parse(spec.layout ?? {}),
    split: Split.parse(spec.split ?? {}),
    bounds: ImageBounds.parse(spec.image ?? {}),
    quarantine: Quarantine.parse(spec.quarantine ?? {}),
    duplicates: Duplicates.parse(spec.duplicates),
  }),
  image: (resolved) => resolved.image,
  task: ({ spec }, { image: _, bounds, ...resolved }, run) => ({
    kind: 'prepare',
    run,
    source:
      spec.source.type === 'HTTP'
        ? { type: 'HTTP', url: spec.source.http!.url, digest: spec.source.http!.digest }
        : { type: 'Path', path: SOURCE_DIR },
    image: bounds,
    ...resolved,
  }),
  pod: ({ spec }) => ({ resources: withDefaults('prepare', spec.resources), pod: spec.pod }),
  source: ({ spec }) =>
    spec.source.type === 'PVC'
      ? { claimName: spec.source.pvc!.claimName, path: spec.source.pvc!.path ?? '' }
      : undefined,
  summarize: (result) => {
    if (result.kind !== 'prepare') return {};
    return {
      samples: result.samples,
      classes: result.classes,
      classCount: result.classCount,
      quarantined: result.quarantined,
      statistics: { mean: result.statistics.mean.map(decimal), std: result.statistics.std.map(decimal) },
      duplicates: result.duplicates,
      reportURI: result.reportURI,
    };
  },
  progress: ({ stage, percent }) => ({ stage, percent: Math.floor(percent) }),
  describe: (status) => {
    const { samples, classCount, quarantined } = status as {
      samples?: number;
      classCount?: number;
      quarantined?: { count: number };
    };
    return `${samples} pictures in ${classCount} classes are packed; ${quarantined?.count ?? 0} are quarantined.`;
  },
};
