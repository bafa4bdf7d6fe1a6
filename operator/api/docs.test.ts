import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parse } from 'yaml';
import { checkSpec } from './check.ts';
import { REASONS } from './conditions.ts';
import { referencePage } from './docs.ts';
import { KINDS } from './kinds.ts';
import { GROUP, VERSION } from './object.ts';

const it = suite('reference page');

const OPERATOR = path.join(import.meta.dirname, '..');
const exampleOf = (kind: string) =>
  readFileSync(path.join(import.meta.dirname, 'examples', `${kind.toLowerCase()}.yaml`), 'utf8');
const dataset = referencePage(KINDS[0], exampleOf('Dataset'));

it('shows an object of its kind that is good', () => {
  for (const { kind } of KINDS) {
    const example = parse(exampleOf(kind));
    assert.is(example.apiVersion, `${GROUP}/${VERSION}`);
    assert.is(example.kind, kind);
    assert.equal(checkSpec(kind, example), []);
  }
});

it('has a line for each field with its type, default and bounds', () => {
  assert.ok(
    dataset.includes('| `split.validationPercent` | integer | `10` | 0 to 99 | Share for validation, in percent. |'),
  );
  assert.match(dataset, /\| `source` \| object \| required \|/);
  assert.match(dataset, /\| `pod\.env\[\]\.valueFrom\.secretKeyRef\.key` \| string \| required \|/);
});

it('tells what goes beyond single fields with the path it is about', () => {
  assert.ok(dataset.includes('- `spec.source.pvc`: needed with type PVC'));
  assert.ok(dataset.includes('- `spec.pod.env[].name`: FOVEA_* and POD_IP are set by the operator'));
});

/** What plan/ gives as a reason: the first word of a state, or a `reason` written out. */
function reasonsGiven(): Set<string> {
  const sources = globSync(['plan/*.ts', 'manifests/*.ts'], { cwd: OPERATOR, exclude: ['plan/conditions.ts'] })
    .filter((file) => !file.endsWith('.test.ts'))
    .map((file) => readFileSync(path.join(OPERATOR, file), 'utf8'));
  const found = sources.flatMap((source) => [
    ...[...source.matchAll(/\b(?:progressing|waiting|stalled|suspended|ready)\(\s*([^;]*?),/g)].map(
      (match) => match[1],
    ),
    ...[...source.matchAll(/(?:reason|doneReason): ([^,\n]*)/g)].map((match) => match[1]),
  ]);
  return new Set(found.flatMap((text) => [...text.matchAll(/'([A-Z][A-Za-z]+)'/g)].map((match) => match[1])));
}

it('explains every reason that the operator gives', () => {
  const explained = new Set(Object.values(REASONS).flatMap((reasons) => reasons.map(({ reason }) => reason)));
  // Reasons of Events and of conditions beside Ready, and the last resorts for a Job that says nothing of itself.
  const elsewhere = [
    'ReplicasReady',
    'NoReadyReplica',
    'RevisionServing',
    'Scaled',
    'Failed',
    'JobFailed',
    'WorkerLost',
  ];
  const given = reasonsGiven();
  assert.ok(given.size > 15, `found only ${[...given]}`);
  assert.equal(
    [...given].filter((reason) => !explained.has(reason) && !elsewhere.includes(reason)),
    [],
  );
});

it('explains no reason that nothing gives', () => {
  const given = reasonsGiven();
  const text = globSync(['plan/*.ts', '../trainer-image/export/*.ts'], { cwd: OPERATOR })
    .map((file) => readFileSync(path.join(OPERATOR, file), 'utf8'))
    .join('\n');
  for (const { reason } of Object.values(REASONS).flat()) {
    const made = /(NotFound|NotReady)$/.test(reason) || reason === 'Suspended';
    assert.ok(made || given.has(reason) || text.includes(`'${reason}'`), `nothing gives ${reason}`);
  }
});

it.run();
