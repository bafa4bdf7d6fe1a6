/** Dataset: validates, splits and packs pictures. */
import { z } from 'zod';
import { Classes, Digest, Duplicates, ImageBounds, Layout, Quarantine, Split } from '../../trainer-image/contract.ts';
import type { FoveaObject } from './object.ts';
import { PodOverrides } from './pod.ts';
import { Resources } from './resources.ts';
import { Decimal, PROGRESS, ResolvedImage, RUN_STATUS } from './status.ts';
import { ClaimName, Store, VolumePath } from './store.ts';

const Source = z
  .strictObject({
    type: z.enum(['PVC', 'HTTP']).describe('`PVC`: a folder of a claim. `HTTP`: a tar behind a URL.'),
    pvc: z
      .strictObject({
        claimName: ClaimName.describe('Claim with the pictures; it is mounted read-only.'),
        path: VolumePath.default('/').describe('Folder, or `.tar` file, in its volume.'),
      })
      .optional()
      .describe('Only with type `PVC`.'),
    http: z
      .strictObject({
        url: z
          .string()
          .min(8)
          .max(2048)
          .regex(/^https?:\/\/.+/)
          .describe('URL of a `.tar` or `.tar.gz`.'),
        digest: Digest.describe('SHA-256 of the file; other content is refused.'),
      })
      .optional()
      .describe('Only with type `HTTP`.'),
  })
  .meta({ union: { PVC: 'pvc', HTTP: 'http' }, unionRequired: true })
  .describe('Where the pictures are.');

export const DatasetSpec = z.strictObject({
  suspend: z.boolean().default(false).describe('Stops the work; it goes on when false again.'),
  task: z.enum(['Classification']).default('Classification').describe('`Classification`: one label a picture.'),
  source: Source,
  layout: Layout.prefault({}),
  classes: Classes,
  split: Split.prefault({}),
  image: ImageBounds.prefault({}),
  quarantine: Quarantine.prefault({}),
  duplicates: Duplicates,
  resources: Resources.optional(),
  store: Store.optional(),
  pod: PodOverrides.optional(),
});
export type DatasetSpec = z.input<typeof DatasetSpec>;

export const DatasetStatus = z.strictObject({
  ...RUN_STATUS,
  resolved: z
    .strictObject({
      image: ResolvedImage,
      classes: Classes.unwrap().describe('Classes as given.'),
      layout: Layout,
      split: Split,
      bounds: ImageBounds,
      quarantine: Quarantine,
      duplicates: Duplicates,
    })
    .optional()
    .describe('All defaults, frozen when the run started.'),
  progress: z
    .strictObject({
      ...PROGRESS,
    })
    .optional()
    .describe('How far the present run is.'),
  samples: z.int().min(0).optional().describe('Pictures packed.'),
  classCount: z.int().min(0).optional().describe('Number of classes.'),
  classes: z
    .array(
      z.strictObject({
        name: z.string().max(253).describe('Name.'),
        index: z.int().min(0).describe('Label.'),
        train: z.int().min(0).describe('Pictures to train on.'),
        validation: z.int().min(0).describe('Pictures to validate on.'),
        test: z.int().min(0).describe('Pictures to test on.'),
      }),
    )
    .max(1000)
    .optional()
    .describe('The first classes; the report has all.'),
  quarantined: z
    .strictObject({
      count: z.int().min(0).describe('Files set aside.'),
      first: z
        .array(
          z.strictObject({
            path: z.string().max(4096).describe('Path in the source.'),
            reason: z.string().max(64).describe('Why.'),
          }),
        )
        .max(10)
        .describe('The first of them.'),
    })
    .optional()
    .describe('Files that could not be used.'),
  statistics: z
    .strictObject({
      mean: z.array(Decimal).max(4).describe('Mean of each channel.'),
      std: z.array(Decimal).max(4).describe('Standard deviation of each channel.'),
    })
    .optional()
    .describe('Of the training split, of values between 0 and 1.'),
  duplicates: z
    .strictObject({
      count: z.int().min(0).describe('Pictures that are a copy of another.'),
      acrossSplits: z.int().min(0).describe('Of these, copies in another split.'),
    })
    .optional()
    .describe('Byte-identical pictures.'),
  reportURI: z.string().max(1024).optional().describe('Full report: every quarantined file and duplicate.'),
});
export type DatasetStatus = z.infer<typeof DatasetStatus>;
export type Dataset = FoveaObject<DatasetSpec, DatasetStatus>;
