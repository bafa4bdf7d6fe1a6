/**
 * What the operator is disturbed in. Each waits only for states that stay until the scenario goes on, since a disturbed operator
 * may jump over others.
 */
import { BAD } from './answers.ts';
import { type Kind, SPECS, type Stage } from './stage.ts';

export type Scenario = (stage: Stage) => Promise<void>;
type RunKind = Exclude<Kind, 'inferenceServices'>;

/** What a kind's object consumes, in the order of the line, done long ago. */
const BEFORE: Record<Kind, RunKind[]> = {
  datasets: [],
  trainingJobs: ['datasets'],
  modelExports: ['datasets', 'trainingJobs'],
  inferenceServices: ['datasets', 'trainingJobs', 'modelExports'],
};

/** A change of the spec that asks for another run or revision, and one that asks for one that fails. */
const CHANGES: Record<Kind, { other: object; bad: object }> = {
  datasets: {
    other: { source: { http: { digest: `sha256:${'b'.repeat(64)}` } } },
    bad: { source: { http: { digest: BAD.archiveDigest } } },
  },
  trainingJobs: {
    other: { trainer: { builtIn: { recipe: { seed: 1 } } } },
    bad: { trainer: { builtIn: { recipe: { seed: BAD.seed } } } },
  },
  modelExports: {
    other: { format: { type: 'ONNX', onnx: { opset: 13 } } },
    bad: { verify: { maxAccuracyDropPoints: BAD.dropPoints } },
  },
  inferenceServices: {
    other: { replicas: 3, runtime: { batching: { maxBatchSize: 8 } } },
    bad: { runtime: { batching: { maxBatchSize: BAD.maxBatchSize } } },
  },
};

/** Puts what the kind consumes there; the operator has nothing to do with it. */
async function supplied(stage: Stage, kind: Kind): Promise<void> {
  for (const input of BEFORE[kind]) {
    await stage.given(input);
    await stage.condition(input, 'Ready', 'True');
  }
}

const change =
  (kind: Kind): Scenario =>
  async (stage) => {
    await supplied(stage, kind);
    await stage.apply(kind);
    await stage.ready(kind);
    stage.begin();
    await stage.patch(kind, { spec: CHANGES[kind].other });
    await stage.ready(kind);
  };

/** Deleted while it works, and made anew with the same name. */
const deletion =
  (kind: Kind): Scenario =>
  async (stage) => {
    await supplied(stage, kind);
    stage.begin();
    stage.hold(kind);
    await stage.apply(kind);
    await stage.working(kind);
    await stage.remove(kind);
    await stage.childless(kind);
    stage.release(kind);
    await stage.apply(kind);
    await stage.ready(kind);
  };

const suspension =
  (kind: Kind): Scenario =>
  async (stage) => {
    await supplied(stage, kind);
    stage.begin();
    stage.hold(kind);
    await stage.apply(kind);
    await stage.working(kind);
    await stage.patch(kind, { spec: { suspend: true } });
    await stage.condition(kind, 'Suspended', 'True');
    if (kind !== 'inferenceServices') await stage.childless(kind);
    await stage.patch(kind, { spec: { suspend: false } });
    await stage.working(kind);
    stage.release(kind);
    await stage.ready(kind);
  };

/** A run that fails, and one after it, of a changed spec, that does not. */
const failure =
  (kind: Kind): Scenario =>
  async (stage) => {
    await supplied(stage, kind);
    stage.begin();
    await stage.apply(kind, merged(SPECS[kind], CHANGES[kind].bad));
    if (kind === 'inferenceServices') {
      // A revision that never gets ready is no end: it stays in the making until the spec changes.
      await stage.condition(kind, 'Available', 'False');
      await stage.working(kind);
    } else await stage.condition(kind, 'Stalled', 'True');
    await stage.patch(kind, { spec: CHANGES[kind].other });
    await stage.ready(kind);
  };

function merged(a: object, b: object): object {
  const result: Record<string, unknown> = { ...a };
  for (const [name, value] of Object.entries(b)) {
    const old = result[name];
    const both = typeof old === 'object' && typeof value === 'object' && old !== null && value !== null;
    result[name] = both ? merged(old, value) : value;
  }
  return result;
}

export const SCENARIOS: Record<string, Scenario> = {
  dataset: async (stage) => {
    stage.begin();
    await stage.apply('datasets');
    await stage.ready('datasets');
  },
  /** From data to a service, applied in the wrong order: each waits for the one before it. */
  line: async (stage) => {
    stage.begin();
    await stage.apply('inferenceServices');
    await stage.condition('inferenceServices', 'Ready', 'False', 'ModelExportNotFound');
    await stage.apply('modelExports');
    await stage.condition('modelExports', 'Ready', 'False', 'TrainingJobNotFound');
    await stage.apply('trainingJobs');
    await stage.condition('trainingJobs', 'Ready', 'False', 'DatasetNotFound');
    await stage.apply('datasets');
    for (const kind of ['datasets', 'trainingJobs', 'modelExports', 'inferenceServices'] as const) {
      await stage.ready(kind);
    }
  },
  'change-dataset': change('datasets'),
  'change-trainingjob': change('trainingJobs'),
  'change-modelexport': change('modelExports'),
  'change-service': change('inferenceServices'),
  'deletion-dataset': deletion('datasets'),
  'deletion-trainingjob': deletion('trainingJobs'),
  'deletion-modelexport': deletion('modelExports'),
  'deletion-service': deletion('inferenceServices'),
  'suspension-dataset': suspension('datasets'),
  'suspension-trainingjob': suspension('trainingJobs'),
  'suspension-modelexport': suspension('modelExports'),
  'suspension-service': suspension('inferenceServices'),
  'failure-dataset': failure('datasets'),
  'failure-trainingjob': failure('trainingJobs'),
  'failure-modelexport': failure('modelExports'),
  'failure-service': failure('inferenceServices'),
};
