import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkSpec } from './check.ts';

const it = suite('check of a spec');

const DIGEST = `sha256:${'a'.repeat(64)}`;
const HTTP = { type: 'HTTP', http: { url: 'http://pictures/a.tar', digest: DIGEST } };
const training = (recipe: object) => ({
  datasetRef: { name: 'd' },
  trainer: { type: 'BuiltIn', builtIn: { model: { name: 'ResNet20' }, recipe } },
});

it('has nothing to say of the least that a user has to write', () => {
  assert.equal(checkSpec('Dataset', { spec: { source: HTTP } }), []);
  assert.equal(checkSpec('TrainingJob', { spec: training({}) }), []);
  assert.equal(checkSpec('ModelExport', { spec: { source: { type: 'TrainingJob', trainingJob: { name: 't' } } } }), []);
  assert.equal(checkSpec('InferenceService', { spec: { model: { type: 'Export', export: { name: 'e' } } } }), []);
});

it('names the field of a wrong value, also inside a list', () => {
  const problems = checkSpec('TrainingJob', {
    spec: training({ epochs: 0, augmentations: [{ type: 'HorizontalFlip' }, { type: 'Blur' }] }),
  });
  assert.is(problems.length, 2);
  assert.match(problems[0], /^spec\.trainer\.builtIn\.recipe\.epochs: .*>=1/);
  assert.match(problems[1], /^spec\.trainer\.builtIn\.recipe\.augmentations\[1\]\.type: .*RandomCrop/);
});

it('names a missing field and one that it does not know', () => {
  assert.match(checkSpec('Dataset', { spec: {} })[0], /^spec\.source: /);
  assert.match(checkSpec('Dataset', { spec: undefined })[0], /^spec: /);
  assert.equal(checkSpec('Dataset', { spec: { source: HTTP, refreshIntervalSeconds: 5 } }), [
    'spec.refreshIntervalSeconds: unknown field; this operator does not have it',
  ]);
});

it('names a member that its union’s type excludes, and one that it lacks', () => {
  assert.equal(checkSpec('Dataset', { spec: { source: { ...HTTP, type: 'PVC' } } }), [
    'spec.source.pvc: needed with type PVC',
    'spec.source.http: only with type HTTP',
  ]);
  assert.equal(checkSpec('TrainingJob', { spec: training({ optimizer: { adamW: {} } }) }), [
    'spec.trainer.builtIn.recipe.optimizer.adamW: only with type AdamW',
  ]);
  assert.equal(
    checkSpec('TrainingJob', { spec: training({ augmentations: [{ type: 'HorizontalFlip', randomCrop: {} }] }) }),
    ['spec.trainer.builtIn.recipe.augmentations[0].randomCrop: only with type RandomCrop'],
  );
});

it('names a class that is listed twice', () => {
  assert.equal(checkSpec('Dataset', { spec: { source: HTTP, classes: ['cat', 'dog', 'cat'] } }), [
    "spec.classes[2]: 'cat' is already at index 0",
  ]);
});

it.run();
