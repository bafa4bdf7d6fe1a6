/** What a trainer's pod would answer to a task, made up, and always the same for the same task. Pure. */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import { EXIT, type Result, type Task, type TerminationMessage } from '../../trainer-image/contract.ts';

export interface Answer {
  exitCode: number;
  message: TerminationMessage;
}

/** The task without the folder of its run, whose name holds a uid: two runs of it make the same bytes. */
export function digestOf(task: object, part = 'artifact'): string {
  const { run: _, ...what } = task as { run?: string };
  return `sha256:${createHash('sha256')
    .update(`${part} ${canonicalize(what)}`)
    .digest('hex')}`;
}

const artifactOf = (task: object) => {
  const digest = digestOf(task);
  return { uri: `store://blobs/sha256/${digest.slice(7)}`, digest, sizeBytes: 1000 };
};

/** Specs by which a scenario asks for a failure. */
export const BAD = { archiveDigest: `sha256:${'f'.repeat(64)}`, seed: 13, dropPoints: 13, maxBatchSize: 13 };

export function answerTo(task: Task): Answer {
  const failure = failureOf(task);
  const result = resultOf(task);
  if (!failure) return { exitCode: EXIT.DONE, message: { result } };
  // As the trainer does: a failed verification keeps its numbers.
  return { exitCode: EXIT.USER_ERROR, message: task.kind === 'export' ? { result, failure } : { failure } };
}

function failureOf(task: Task): TerminationMessage['failure'] {
  if (task.kind === 'prepare' && task.source.type === 'HTTP' && task.source.digest === BAD.archiveDigest) {
    return { reason: 'DigestMismatch', message: 'The file is not the one that spec.source.http.digest names.' };
  }
  if (task.kind === 'train' && task.recipe.seed === BAD.seed) {
    return { reason: 'LossNotFinite', message: 'The loss is not finite; lower the learning rate.' };
  }
  if (task.kind === 'export' && task.verify.maxAccuracyDropPoints === BAD.dropPoints) {
    return { reason: 'VerificationFailed', message: 'Accuracy fell by 51.3 points.' };
  }
  return undefined;
}

function resultOf(task: Task): Result | undefined {
  const artifact = artifactOf(task);
  switch (task.kind) {
    case 'prepare':
      return {
        kind: 'prepare',
        artifact,
        samples: 10,
        classes: [{ name: 'cat', index: 0, train: 8, validation: 1, test: 1 }],
        classCount: 1,
        quarantined: { count: 0, first: [] },
        statistics: { mean: [0.5], std: [0.25] },
        duplicates: { count: 0, acrossSplits: 0 },
        reportURI: `store://blobs/sha256/${digestOf(task, 'report').slice(7)}`,
      };
    case 'train':
      return {
        kind: 'train',
        artifact,
        checkpoints: [{ name: 'Best', epoch: 3, digest: artifact.digest, uri: artifact.uri }],
        preprocessing: { digest: digestOf(task, 'preprocessing') },
        epochs: task.recipe.epochs,
        metrics: [{ name: 'ValidationAccuracy', value: 0.913 }],
      };
    case 'export': {
      const passed = failureOf(task) === undefined;
      return {
        kind: 'export',
        artifact,
        verification: {
          passed,
          accuracy: passed ? 0.912 : 0.4,
          sourceAccuracy: 0.913,
          dropPoints: passed ? 0.1 : 51.3,
          maxLogitDifference: 0.00001,
          evaluated: 1000,
          sizeBytes: 1000,
          predictions: digestOf(task, 'predictions'),
        },
        signature: { inputs: [{ name: 'image', dataType: 'UINT8', shape: 'N,3,32,32' }], outputs: [] },
      };
    }
    case 'serve':
      return undefined;
  }
}
