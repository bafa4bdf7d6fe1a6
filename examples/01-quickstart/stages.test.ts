import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Observed, stageOf } from './stages.ts';
import { line } from './view.ts';

const it = suite('quickstart stages');

const condition = (type: string, status: 'True' | 'False' | 'Unknown', message = '', observedGeneration = 1) => ({
  type,
  status,
  reason: 'Because',
  message,
  observedGeneration,
  lastTransitionTime: '2026-01-01T00:00:00Z',
});
const observed = (status: Observed['status'], generation = 1): Observed => ({ metadata: { generation }, status });

it('wait for what their condition names, and before they exist', () => {
  assert.equal(stageOf('Dataset', undefined).state, 'Waiting');
  const waiting = observed({ conditions: [condition('Ready', 'False', 'Dataset fashion is not ready')] });
  const stage = stageOf('TrainingJob', waiting);
  assert.equal([stage.state, stage.detail], ['Waiting', 'Dataset fashion is not ready']);
});

it('show how far the work is', () => {
  const metrics = [
    { name: 'TrainLoss', value: '1.26023' },
    { name: 'ValidationAccuracy', value: '0.7875' },
  ];
  const progress = { stage: 'training', percent: 39, epoch: 1, epochs: 2, etaSeconds: 95, metrics };
  const stage = stageOf('TrainingJob', observed({ conditions: [condition('Ready', 'Unknown')], progress }));
  assert.is(stage.percent, 39);
  assert.is(stage.detail, 'training, epoch 1 of 2, loss 1.260, accuracy 0.787, 1 min 35 s left');
});

it('are failed by a stall of the present spec, and not by one of a spec that has been corrected', () => {
  const conditions = [condition('Ready', 'False'), condition('Stalled', 'True', 'the file has changed')];
  const failed = stageOf('Dataset', observed({ conditions }, 1));
  assert.equal([failed.state, failed.detail], ['Failed', 'Because: the file has changed']);
  assert.is(stageOf('Dataset', observed({ conditions }, 2)).state, 'Waiting');
});

it('are not ready by the word of an earlier spec', () => {
  const conditions = [condition('Ready', 'True')];
  const status = { conditions, samples: 22000, classCount: 10 };
  assert.is(stageOf('Dataset', observed(status, 2)).state, 'Waiting');
  const ready = stageOf('Dataset', observed(status, 1));
  assert.equal([ready.state, ready.detail], ['Ready', '22,000 pictures in 10 classes']);
});

it('fit the terminal', () => {
  const stage = stageOf('Dataset', observed({ conditions: [condition('Ready', 'False', 'x'.repeat(200))] }));
  assert.is(line(stage, 3, 80).length, 80);
  assert.match(line(stage, undefined, 400), /Dataset +░{20} +waiting/);
});

it.run();
