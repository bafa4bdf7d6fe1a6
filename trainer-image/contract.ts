/**
 * All that the operator and the trainer share: what a pod is told (tasks), what it answers (results, failures, progress),
 * and by which environment names, exit codes and files. The operator imports nothing else of the trainer's.
 *
 * Options that a user writes in a spec (recipe, model, split, ...) are declared here once, with their bounds, defaults and
 * descriptions: the CRDs, the reference pages, the operator's checks and the trainer's own checks come from these schemas.
 * A `.default()` is resolved in code when a run starts and never becomes a schema default of a CRD.
 */
import { z } from 'zod';

declare module 'zod' {
  interface GlobalMeta {
    /** A union told by `type`: for each of its values the member that belongs to it (null: none). */
    union?: Record<string, string | null>;
    /** The member of the union must be given; without it, its defaults hold. */
    unionRequired?: boolean;
    /** Most keys of a map. */
    maxProperties?: number;
    /** OpenAPI format of a string. */
    format?: string;
    /** CEL rules of this object (x-kubernetes-validations). */
    rules?: { rule: string; message: string; fieldPath?: string; reason?: string }[];
    /** The key by which a list is a map (x-kubernetes-list-map-keys); lists without it are atomic. */
    listMapKeys?: string[];
    /** A default that enters the CRD's schema: only for fields that are in no inputDigest. */
    schemaDefault?: unknown;
  }
}

// ---------------------------------------------------------------------------------------------- the process

/** Exit codes of a trainer process. The Job's podFailurePolicy is made from these. */
export const EXIT = {
  /** The task is done and its result is durable. */
  DONE: 0,
  /** The user must change something (spec, data): a retry cannot help, so the Job fails at once. */
  USER_ERROR: 64,
  /** An accelerator was asked for and none was found; never a silent run on the CPU. */
  NO_ACCELERATOR: 65,
  /** Told to stop before the task was done; state is saved, the next pod goes on. Never 0, or the index would count as done. */
  INTERRUPTED: 75,
  /** Anything else: retried. */
  FAILURE: 1,
} as const;

/** Environment of a trainer pod. */
export const ENV = {
  /** The task, as JSON (see `Task`). */
  TASK: 'FOVEA_TASK',
  /** Folder of the store. In pods /store; on a command line `--store`. */
  STORE: 'FOVEA_STORE',
  /** Folder for scratch files that may vanish with the pod. Default: the system's temporary folder. */
  SCRATCH: 'FOVEA_SCRATCH',
  /** Base URL that takes progress. Absent: none is sent. */
  INTAKE: 'FOVEA_INTAKE',
  /** File with the bearer token for the intake; read again for each request, since it rotates. */
  INTAKE_TOKEN_FILE: 'FOVEA_INTAKE_TOKEN_FILE',
  /** File with the PEM certificates the intake is verified against. Absent: the system's. */
  INTAKE_CA_FILE: 'FOVEA_INTAKE_CA_FILE',
  /** The file whose content Kubernetes shows as the container's termination message. Absent: the result goes to standard output. */
  TERMINATION_LOG: 'FOVEA_TERMINATION_LOG',
  /** Address to listen on, from the downward API (status.podIP). Default 127.0.0.1. */
  POD_IP: 'POD_IP',
} as const;

/** Audience of the projected token that workers show to the intake. */
export const INTAKE_AUDIENCE = 'fovea-intake';

/** Port at which a worker's ring listens, at its pod's address. */
export const RING_PORT = 7077;

/** Kubernetes keeps this many bytes of a termination message; a longer one is cut and would not parse. */
export const TERMINATION_MESSAGE_BYTES = 4096;

/** Port of a predictor: Open Inference Protocol, `:classify`, health and metrics. */
export const PREDICTOR_PORT = 8080;

// ---------------------------------------------------------------------------------------------- shared pieces

export const Digest = z
  .string()
  .regex(/^sha256:[0-9a-f]{64}$/)
  .describe('SHA-256 of the content, as `sha256:` and 64 hexadecimal digits.');

/** Content in the store: `blobs/sha256/<hex>` below its root. */
export const Artifact = z.strictObject({
  uri: z.string().max(1024).describe('Where the content lies: `store://<claim>/<path>/blobs/sha256/<hex>`.'),
  digest: Digest,
  sizeBytes: z.int().min(0).describe('Size in bytes.'),
});
export type Artifact = z.infer<typeof Artifact>;

/** Path of a blob below the store's root. */
export function blobPath(digest: string): string {
  return `blobs/sha256/${digest.replace(/^sha256:/, '')}`;
}

const percentOrCount = z
  .union([z.int().min(0), z.string().regex(/^(100|[0-9]{1,2})%$/)])
  .describe('A count, or a share such as `1%`.');

// ---------------------------------------------------------------------------------------------- data

export const Colour = z
  .enum(['RGB', 'Grey'])
  .describe('`RGB` (3 channels) or `Grey` (1 channel); pictures are converted.');
export type Colour = z.infer<typeof Colour>;

export const Layout = z
  .strictObject({
    type: z
      .enum(['ImageFolder'])
      .default('ImageFolder')
      .describe('`ImageFolder`: the folder a picture lies in is its class.'),
  })
  .describe('How pictures and labels lie in the source.');

export const Split = z
  .strictObject({
    type: z
      .enum(['Random', 'Folders'])
      .default('Random')
      .describe(
        '`Random`: drawn by `seed`. `Folders`: the top folders `train/`, `val/` (or `validation/`) and `test/`; without a validation folder, `validationPercent` of `train/` is drawn by `seed`.',
      ),
    seed: z
      .int()
      .min(0)
      .max(2 ** 31 - 1)
      .default(0)
      .describe('Seed of the draw.'),
    validationPercent: z.int().min(0).max(99).default(10).describe('Share for validation, in percent.'),
    testPercent: z.int().min(0).max(99).default(10).describe('Share for the test, in percent. Only with `Random`.'),
    stratified: z.boolean().default(true).describe('Draw the same share from each class.'),
  })
  .meta({
    rules: [
      {
        rule: '(has(self.validationPercent) ? self.validationPercent : 10) + (has(self.testPercent) ? self.testPercent : 10) < 100',
        message: 'validationPercent + testPercent must be below 100, so that something is left to train on',
      },
    ],
  })
  .describe('How samples are divided into train, validation and test.');
export type Split = z.infer<typeof Split>;

export const ImageBounds = z
  .strictObject({
    colour: Colour.default('RGB'),
    maxPixels: z
      .int()
      .min(1)
      .max(1_000_000_000)
      .default(50_000_000)
      .describe('A picture with more pixels is quarantined.'),
    maxBytes: z.int().min(1).max(1_073_741_824).default(52_428_800).describe('A file with more bytes is quarantined.'),
  })
  .describe('What a picture may be.');
export type ImageBounds = z.infer<typeof ImageBounds>;

export const Quarantine = z
  .strictObject({ max: percentOrCount.default('1%').describe('More unusable files than this fail the Dataset.') })
  .describe('Files that cannot be used are set aside and named.');

export const Duplicates = z
  .enum(['Report', 'Drop'])
  .default('Report')
  .describe('Byte-identical pictures: `Report` counts them, `Drop` keeps the first by path.');

export const Classes = z
  .array(z.string().min(1).max(253))
  .max(10_000)
  .default([])
  .describe('Class names; their order is the label index. Empty: the sorted names found.');

/** A source as the pod sees it. */
export const PrepareSource = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('Path'), path: z.string().describe('A folder of pictures, or a `.tar` of one.') }),
  z.strictObject({
    type: z.literal('HTTP'),
    url: z.url({ protocol: /^https?$/ }),
    digest: Digest.describe('SHA-256 of the tar.'),
  }),
]);
export type PrepareSource = z.infer<typeof PrepareSource>;

export const PrepareTask = z.strictObject({
  kind: z.literal('prepare'),
  run: z.string().describe('Folder below `runs/` that is this run’s own.'),
  source: PrepareSource,
  layout: Layout.prefault({}),
  classes: Classes,
  split: Split.prefault({}),
  image: ImageBounds.prefault({}),
  quarantine: Quarantine.prefault({}),
  duplicates: Duplicates,
});
export type PrepareTask = z.infer<typeof PrepareTask>;

export const SPLITS = ['train', 'validation', 'test'] as const;
export type SplitName = (typeof SPLITS)[number];

/**
 * The packed dataset: a canonical JSON blob whose digest is the Dataset's artifact digest. Shards are tar files in WebDataset
 * form (`<key>.<ext>` and `<key>.cls` with the label index, keys ascending), themselves blobs.
 */
export const DatasetIndex = z.strictObject({
  format: z.literal('fovea.dev/dataset/v1'),
  classes: z.array(z.string()),
  colour: Colour,
  /** Of the training split, per channel, of values in [0, 1]. */
  statistics: z.strictObject({ mean: z.array(z.number()), std: z.array(z.number()) }),
  splits: z.record(
    z.enum(SPLITS),
    z.strictObject({
      samples: z.int().min(0),
      /** Samples of each class, in the order of `classes`. */
      perClass: z.array(z.int().min(0)),
      shards: z.array(z.strictObject({ digest: Digest, samples: z.int().min(1), sizeBytes: z.int().min(1) })),
    }),
  ),
  /** Blob with the full report: every quarantined file and duplicate by name. */
  report: Digest,
});
export type DatasetIndex = z.infer<typeof DatasetIndex>;

/** Answer of `prepare`. Lists are cut so that it fits a termination message; the report has all. */
export const PrepareResult = z.strictObject({
  kind: z.literal('prepare'),
  artifact: Artifact,
  samples: z.int(),
  /** The first classes by index, as many as fit. */
  classes: z.array(
    z.strictObject({ name: z.string(), index: z.int(), train: z.int(), validation: z.int(), test: z.int() }),
  ),
  classCount: z.int(),
  quarantined: z.strictObject({
    count: z.int(),
    first: z.array(z.strictObject({ path: z.string(), reason: z.string() })).max(10),
  }),
  statistics: z.strictObject({ mean: z.array(z.number()), std: z.array(z.number()) }),
  duplicates: z.strictObject({ count: z.int(), acrossSplits: z.int() }),
  reportURI: z.string(),
});
export type PrepareResult = z.infer<typeof PrepareResult>;

// ---------------------------------------------------------------------------------------------- training

const MODELS = ['ResNet18', 'ResNet20'] as const;

export const Model = z
  .strictObject({
    name: z
      .enum(MODELS)
      .describe('`ResNet20`: the CIFAR network of the ResNet paper (0.27 M parameters). `ResNet18`: 11 M parameters.'),
    inputSize: z
      .strictObject({
        height: z.int().min(8).max(1024).describe('Height in pixels.'),
        width: z.int().min(8).max(1024).describe('Width in pixels.'),
      })
      .default({ height: 32, width: 32 })
      .describe('Pixels the network sees; pictures are resized to it.'),
    stem: z
      .enum(['Auto', 'Small', 'Large'])
      .default('Auto')
      .describe(
        'First layers: `Small` is a 3×3 convolution (small pictures), `Large` 7×7 with stride 2 and max pooling, `Auto` is `Small` up to 64 pixels. ResNet20 has only `Small`.',
      ),
  })
  .meta({
    rules: [
      {
        rule: "!(self.name == 'ResNet20' && has(self.stem) && self.stem == 'Large')",
        message: 'ResNet20 has only Small',
        fieldPath: '.stem',
      },
    ],
  })
  .describe('The network.');
export type Model = z.infer<typeof Model>;

export const SGD = z.strictObject({
  momentum: z.number().min(0).lt(1).default(0.9).describe('Momentum.'),
  nesterov: z.boolean().default(true).describe('Nesterov momentum.'),
});

export const AdamW = z.strictObject({
  beta1: z.number().min(0).lt(1).default(0.9).describe('Decay of the first moment.'),
  beta2: z.number().min(0).lt(1).default(0.999).describe('Decay of the second moment.'),
  epsilon: z.number().gt(0).max(1).default(1e-8).describe('Added to the denominator.'),
});

export const Optimizer = z
  .strictObject({
    type: z
      .enum(['SGD', 'AdamW'])
      .default('SGD')
      .describe('`SGD` with momentum, or `AdamW` (Loshchilov and Hutter 2019).'),
    learningRate: z.number().gt(0).max(100).default(0.1).describe('Peak learning rate.'),
    weightDecay: z
      .number()
      .min(0)
      .max(10)
      .default(0.0001)
      .describe('Weight decay; coupled (L2) for SGD, decoupled for AdamW.'),
    decayNormsAndBiases: z.boolean().default(false).describe('Decay batch-norm parameters and biases too.'),
    sgd: SGD.optional().describe('Only with type `SGD`.'),
    adamW: AdamW.optional().describe('Only with type `AdamW`.'),
  })
  .meta({ union: { SGD: 'sgd', AdamW: 'adamW' } })
  .describe('How weights are updated.');
export type Optimizer = z.infer<typeof Optimizer>;

export const Schedule = z
  .strictObject({
    type: z
      .enum(['Constant', 'Cosine'])
      .default('Cosine')
      .describe('`Cosine` falls from the peak to 0 over all steps (Loshchilov and Hutter 2017); `Constant` stays.'),
    warmupSteps: z.int().min(0).max(10_000_000).default(0).describe('Steps of linear rise from 0 to the peak.'),
  })
  .describe('The learning rate over the steps.');
export type Schedule = z.infer<typeof Schedule>;

const Loss = z
  .strictObject({
    type: z.enum(['CrossEntropy']).default('CrossEntropy').describe('Softmax cross-entropy.'),
    labelSmoothing: z
      .number()
      .min(0)
      .lt(1)
      .default(0.1)
      .describe('Mass spread over all classes (Szegedy et al. 2016).'),
  })
  .describe('What is minimized.');

export const Augmentation = z
  .strictObject({
    type: z
      .enum(['RandomCrop', 'HorizontalFlip'])
      .describe('`RandomCrop`: zero padding, then a crop of the input size. `HorizontalFlip`: left and right swapped.'),
    probability: z
      .number()
      .min(0)
      .max(1)
      .optional()
      .describe('Share of pictures it is applied to. Default 0.5 for `HorizontalFlip`, 1 for `RandomCrop`.'),
    randomCrop: z
      .strictObject({ padding: z.int().min(1).max(64).optional().describe('Pixels added on each side. Default 4.') })
      .optional()
      .describe('Only with type `RandomCrop`.'),
  })
  .meta({ union: { RandomCrop: 'randomCrop', HorizontalFlip: null } });
export type Augmentation = z.infer<typeof Augmentation>;

export const Recipe = z
  .strictObject({
    epochs: z.int().min(1).max(100_000).default(30).describe('Passes over the training split.'),
    batchSize: z.int().min(1).max(65_536).default(128).describe('Samples a step, over all ranks.'),
    seed: z
      .int()
      .min(0)
      .max(2 ** 31 - 1)
      .default(0)
      .describe('Seed of weights, order and augmentation.'),
    optimizer: Optimizer.prefault({}),
    schedule: Schedule.prefault({}),
    loss: Loss.prefault({}),
    augmentations: z
      .array(Augmentation)
      .max(16)
      .default([
        { type: 'RandomCrop', randomCrop: { padding: 4 } },
        { type: 'HorizontalFlip', probability: 0.5 },
      ])
      .describe('Applied in this order to training pictures only.'),
    gradientClipNorm: z
      .number()
      .gt(0)
      .max(1e6)
      .optional()
      .describe('Gradients are scaled so that their global norm is at most this. Absent: no clipping.'),
  })
  .describe('How the network is trained.');
export type Recipe = z.infer<typeof Recipe>;

export const Checkpoints = z
  .strictObject({
    everyEpochs: z.int().min(1).max(100_000).default(1).describe('Epochs between checkpoints.'),
    everySeconds: z
      .int()
      .min(10)
      .max(86_400)
      .default(600)
      .describe('Seconds after which a checkpoint is written within an epoch.'),
    keepLast: z.int().min(1).max(100).default(3).describe('Older checkpoints are removed. The best is always kept.'),
  })
  .describe('When state is saved.');
export type Checkpoints = z.infer<typeof Checkpoints>;

/**
 * How a picture becomes the network's input, recorded with the model at training time and followed by the server: decode, apply
 * the EXIF orientation, convert to `colour`, resize (no crop, aspect ratio not kept) to `[height, width]` with `kernel`, giving
 * uint8 `[H, W, C]`; the network itself (in the exported graph too) computes (x / 255 − mean) / std.
 */
export const Preprocessing = z.strictObject({
  format: z.literal('fovea.dev/preprocessing/v1'),
  colour: Colour,
  height: z.int(),
  width: z.int(),
  kernel: z.literal('lanczos3'),
  mean: z.array(z.number()),
  std: z.array(z.number()),
});
export type Preprocessing = z.infer<typeof Preprocessing>;

/** Most ranks of one run. */
export const MAX_WORKERS = 512;

export const TrainTask = z.strictObject({
  kind: z.literal('train'),
  run: z.string().describe('Folder below `runs/` that is this run’s own: checkpoints and their journal.'),
  dataset: z.strictObject({ digest: Digest }),
  model: Model,
  recipe: Recipe.prefault({}),
  checkpoints: Checkpoints.prefault({}),
  threads: z.int().min(1).optional().describe('Threads of the engine. Default: the CPUs of the machine.'),
  workers: z
    .int()
    .min(1)
    .max(MAX_WORKERS)
    .default(1)
    .describe('Processes that train together. With more than one the ring comes from the intake.'),
  stackAfterSeconds: z
    .number()
    .gt(0)
    .default(300)
    .describe('An engine whose step stands still for this long is asked for its stack, which goes with the progress.'),
});
export type TrainTask = z.infer<typeof TrainTask>;

export const Metric = z.strictObject({ name: z.string(), value: z.number() });
export type Metric = z.infer<typeof Metric>;

export const CheckpointEntry = z.strictObject({
  name: z.enum(['Best', 'Last']).describe('`Best` by validation accuracy, or `Last`.'),
  epoch: z.int().describe('Epochs it was trained for.'),
  digest: Digest,
  uri: z.string().max(1024).describe('Where it lies in the store.'),
});

/** Answer of `train`. `artifact` is the best model: a safetensors blob of weights with a `ModelCard` in its metadata. */
export const TrainResult = z.strictObject({
  kind: z.literal('train'),
  artifact: Artifact,
  checkpoints: z.array(CheckpointEntry),
  preprocessing: z.strictObject({ digest: Digest }),
  epochs: z.int(),
  metrics: z.array(Metric),
});
export type TrainResult = z.infer<typeof TrainResult>;

/** What a model file says of itself (safetensors metadata key `fovea`, as JSON). Enough to rebuild the graph and feed it. */
export const ModelCard = z.strictObject({
  format: z.literal('fovea.dev/model/v1'),
  model: Model,
  classes: z.array(z.string()),
  preprocessing: Preprocessing,
  /** Digest of the dataset it was trained on. */
  dataset: Digest,
  epoch: z.int(),
  metrics: z.array(Metric),
});
export type ModelCard = z.infer<typeof ModelCard>;

// ---------------------------------------------------------------------------------------------- export

export const OnnxFormat = z
  .strictObject({
    opset: z.int().min(13).max(21).default(17).describe('ONNX operator set.'),
    dynamicBatch: z.boolean().default(true).describe('Any batch size at run time; false fixes it to 1.'),
    foldNormalization: z
      .boolean()
      .default(true)
      .describe('Input is uint8 pixels and normalization is part of the graph; false takes normalized float32.'),
  })
  .describe('ONNX options.');
export type OnnxFormat = z.infer<typeof OnnxFormat>;

export const VerifyLimits = z.strictObject({
  split: z
    .enum(['Validation', 'Test'])
    .default('Validation')
    .describe('The held-out split it is measured on; the training split never is.'),
  maxAccuracyDropPoints: z
    .number()
    .min(0)
    .max(100)
    .default(0.3)
    .describe('Percentage points of accuracy the export may lose against its source.'),
  maxLogitDifference: z
    .number()
    .gt(0)
    .max(1)
    .default(0.0001)
    .describe('Largest relative difference ‖a − b‖ / ‖b‖ between the logits of the export and of its source.'),
});
export type VerifyLimits = z.infer<typeof VerifyLimits>;

export const ExportTask = z.strictObject({
  kind: z.literal('export'),
  run: z.string().describe('Folder below `runs/` that is this run’s own.'),
  model: z.strictObject({ digest: Digest }).describe('The safetensors model.'),
  dataset: z.strictObject({ digest: Digest }).describe('What it is verified on.'),
  onnx: OnnxFormat.prefault({}),
  verify: VerifyLimits.prefault({}),
});
export type ExportTask = z.infer<typeof ExportTask>;

const Verification = z.strictObject({
  passed: z.boolean(),
  /** Shares in [0, 1]. */
  accuracy: z.number(),
  sourceAccuracy: z.number(),
  dropPoints: z.number(),
  maxLogitDifference: z.number(),
  evaluated: z.int(),
  sizeBytes: z.int(),
  /** Blob, JSON lines: `{"path": <path in the source>, "label": <index>, "predicted": <index>}`, in the split's order. */
  predictions: Digest,
});
export type Verification = z.infer<typeof Verification>;

export const TensorSignature = z.strictObject({
  name: z.string().max(253).describe('Name.'),
  dataType: z.string().max(64).describe('Type, as the Open Inference Protocol names it.'),
  shape: z.string().max(253).describe('Dimensions, as `N,3,32,32`.'),
});

/** Answer of `export`; also when verification failed (`verification.passed` false, exit code USER_ERROR): numbers are kept. */
export const ExportResult = z.strictObject({
  kind: z.literal('export'),
  artifact: Artifact,
  verification: Verification,
  /** Why verification failed, in words; absent if it passed. */
  failure: z.string().optional(),
  signature: z.strictObject({ inputs: z.array(TensorSignature), outputs: z.array(TensorSignature) }),
});
export type ExportResult = z.infer<typeof ExportResult>;

// ---------------------------------------------------------------------------------------------- serving

export const Batching = z
  .strictObject({
    maxBatchSize: z.int().min(1).max(1024).default(32).describe('Most pictures run at once.'),
    maxQueueDelayMicroseconds: z
      .int()
      .min(0)
      .max(10_000_000)
      .default(2000)
      .describe('Longest wait for a batch to fill, in microseconds.'),
  })
  .describe('Dynamic batching.');
export type Batching = z.infer<typeof Batching>;

export const ServeTask = z.strictObject({
  kind: z.literal('serve'),
  name: z.string().min(1).max(253).describe('Model name in the protocol.'),
  model: z.strictObject({ digest: Digest }).describe('The ONNX model.'),
  port: z.int().min(0).max(65_535).default(PREDICTOR_PORT).describe('Port to listen on; 0 takes any free one.'),
  batching: Batching.prefault({}),
  maxBodyBytes: z.int().min(1).default(20_971_520).describe('Larger bodies get 413.'),
  threads: z.int().min(1).optional().describe('Threads of ONNX Runtime. Default: the CPUs of the machine.'),
  drainSeconds: z.int().min(0).default(30).describe('After SIGTERM, seconds for requests in flight.'),
});
export type ServeTask = z.infer<typeof ServeTask>;

// ---------------------------------------------------------------------------------------------- messages

export const Task = z.discriminatedUnion('kind', [PrepareTask, TrainTask, ExportTask, ServeTask]);
export type Task = z.infer<typeof Task>;

export const Result = z.discriminatedUnion('kind', [PrepareResult, TrainResult, ExportResult]);
export type Result = z.infer<typeof Result>;

/** What a failed process says: `reason` is CamelCase and becomes a condition's reason, `message` says what to do. */
export const Failure = z.strictObject({
  reason: z
    .string()
    .regex(/^[A-Z][A-Za-z0-9]*$/)
    .max(64),
  message: z.string().max(1024),
});
export type Failure = z.infer<typeof Failure>;

/** The termination message, as JSON of at most `TERMINATION_MESSAGE_BYTES`. */
export const TerminationMessage = z.strictObject({ result: Result.optional(), failure: Failure.optional() });
export type TerminationMessage = z.infer<typeof TerminationMessage>;

/** `POST <intake>/v1/progress`. The sender is known by its token, so nothing here says whose progress it is. */
export const Progress = z.strictObject({
  /** What is being done, as words: `downloading`, `packing`, `training`, `verifying`. */
  stage: z.string().max(64),
  percent: z.number().min(0).max(100),
  epoch: z.int().min(0).optional(),
  epochs: z.int().min(0).optional(),
  step: z.int().min(0).optional(),
  etaSeconds: z.number().min(0).optional(),
  samplesPerSecond: z.number().min(0).optional(),
  metrics: z.array(Metric).max(16).optional(),
  /** The ring the worker is in; absent while it waits for one, and with one worker. */
  generation: z.int().min(1).optional(),
  /** What the engine is at, by which the one that the others wait for is found. */
  activity: z.enum(['Computing', 'Exchanging', 'WaitingForRing', 'Saving']).optional(),
  /** Seconds since the engine's step last changed, when it stands still; reports go on meanwhile. */
  standingSeconds: z.number().min(0).optional(),
  /** The engine's stack, innermost first, once it stands still for `stackAfterSeconds`. */
  stack: z.string().max(4096).optional(),
});
export type Progress = z.infer<typeof Progress>;

/**
 * `POST <intake>/v1/ring`: asks for a ring, that is for one newer than `after` (0: any). A worker that asks for a newer one than the
 * present says by it that the present one is broken. 200 with a `Ring`; 204 after at most `RING_POLL_SECONDS`: ask again.
 */
export const RingRequest = z.strictObject({ after: z.int().min(0) });
export type RingRequest = z.infer<typeof RingRequest>;

/** Longest time that a request for a ring is held. */
export const RING_POLL_SECONDS = 25;

/** All that a worker needs to meet its peers. Each listens at its address and `RING_PORT`. */
export const Ring = z.strictObject({
  /** Counts up over the life of a TrainingJob. Peers of another generation are refused. */
  generation: z.int().min(1),
  /** The asker's own rank. */
  rank: z.int().min(0),
  /** By rank. */
  members: z
    .array(z.strictObject({ rank: z.int().min(0), pod: z.string().max(253), address: z.string().max(253) }))
    .min(1)
    .max(MAX_WORKERS),
  /** Of this generation alone, base64 of 32 bytes: peers prove to each other by HMAC that they know it. */
  secret: z.base64(),
});
export type Ring = z.infer<typeof Ring>;
