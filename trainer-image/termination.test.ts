import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type PrepareResult, TERMINATION_MESSAGE_BYTES, TerminationMessage } from './contract.ts';
import { encodeTermination } from './termination.ts';

const it = suite('termination message');
const digest = `sha256:${'a'.repeat(64)}`;

function prepareResult(classes: number, pathCharacters: number): PrepareResult {
  return {
    kind: 'prepare',
    artifact: { uri: `store://blobs/sha256/${'a'.repeat(64)}`, digest, sizeBytes: 1 },
    samples: 1,
    classes: Array.from({ length: classes }, (_, index) => ({
      name: `class ${index}`,
      index,
      train: 1,
      validation: 1,
      test: 1,
    })),
    classCount: classes,
    quarantined: {
      count: 10,
      first: Array.from({ length: 10 }, () => ({ path: 'é'.repeat(pathCharacters), reason: 'Truncated' })),
    },
    statistics: { mean: [0.5], std: [0.25] },
    duplicates: { count: 0, acrossSplits: 0 },
    reportURI: 'store://blobs/sha256/b',
  };
}

/** Parsed after its size was checked. */
function encoded(message: Parameters<typeof encodeTermination>[0]): TerminationMessage {
  const text = encodeTermination(message);
  assert.ok(Buffer.byteLength(text) <= TERMINATION_MESSAGE_BYTES, `${Buffer.byteLength(text)} bytes`);
  return TerminationMessage.parse(JSON.parse(text));
}

it('is whole where it fits', () => {
  const result = prepareResult(5, 10);
  assert.equal(encoded({ result }), { result });
});

it('keeps the first classes, as many as fit, and the count of all', () => {
  const { result } = encoded({ result: prepareResult(10_000, 300) });
  assert.is(result?.kind, 'prepare');
  if (result?.kind !== 'prepare') return;
  assert.is(result.classCount, 10_000);
  assert.ok(result.classes.length > 5 && result.classes.length < 100, `${result.classes.length} classes`);
  assert.equal(result.classes.at(-1)?.index, result.classes.length - 1);
  assert.is(result.quarantined.first.length, 10);
});

it('cuts a long message of a failure and keeps its reason', () => {
  const { failure } = encoded({ failure: { reason: 'TooManyQuarantined', message: '\u0001'.repeat(5000) } });
  assert.is(failure?.reason, 'TooManyQuarantined');
  assert.ok(failure!.message.length > 500 && failure!.message.endsWith('…'));
});

it('cuts words rather than numbers where a failure has a result', () => {
  const result = prepareResult(0, 100);
  const kept = encoded({ result, failure: { reason: 'Some', message: '\u0001'.repeat(1000) } });
  assert.is(kept.result?.kind, 'prepare');
  assert.is(kept.failure?.reason, 'Some');
});

it.run();
