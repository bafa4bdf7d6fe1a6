import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { VerifyLimits } from '../contract.ts';
import { Comparison, judge, type Measured } from './verify.ts';

const it = suite('verification');

it('measures accuracy of both, the drop, and one relative difference over all batches', () => {
  const comparison = new Comparison(4, 2);
  comparison.add(Float32Array.of(3, 0, 0, 4), Float32Array.of(3, 0, 4, 0), [0, 0]);
  comparison.add(Float32Array.of(0, 1, 1, 0), Float32Array.of(0, 1, 1, 0), [1, 1]);
  const { predicted, ...measured } = comparison.measured();
  // ‖a − b‖² = 16 + 16; ‖b‖² = 9 + 16 + 1 + 1
  assert.equal(measured, {
    evaluated: 4,
    accuracy: 0.5,
    sourceAccuracy: 0.75,
    dropPoints: 25,
    logitDifference: Math.sqrt(32 / 27),
  });
  assert.equal([...predicted], [0, 1, 1, 0]);
});

it('takes the first of equal logits as the prediction', () => {
  const comparison = new Comparison(1, 3);
  comparison.add(Float32Array.of(1, 2, 2), Float32Array.of(2, 2, 1), [1]);
  const { accuracy, sourceAccuracy } = comparison.measured();
  assert.equal([accuracy, sourceAccuracy], [1, 0]);
});

it('passes up to the limits, and says which was exceeded by how much', () => {
  const limits = VerifyLimits.parse({});
  const measured = (change: Partial<Measured>): Measured => ({
    evaluated: 2000,
    accuracy: 0.9,
    sourceAccuracy: 0.9,
    dropPoints: 0,
    logitDifference: 1e-6,
    predicted: new Int32Array(),
    ...change,
  });
  assert.is(judge(measured({}), limits), undefined);
  assert.is(judge(measured({ dropPoints: -5 }), limits), undefined);
  assert.is(judge(measured({ dropPoints: 0.3, logitDifference: 1e-4 }), limits), undefined);
  const both = judge(measured({ accuracy: 0.8, dropPoints: 10, logitDifference: 0.02 }), limits)!;
  assert.match(both, /2000 pictures of the Validation split/);
  assert.match(both, /10\.00 points, from 0\.9000 to 0\.8000 \(verify\.maxAccuracyDropPoints: 0\.3\)/);
  assert.match(both, /2\.00e-2.*verify\.maxLogitDifference: 0\.0001/);
  assert.match(judge(measured({ logitDifference: Number.NaN }), limits)!, /logits differ/);
  assert.match(judge(measured({ logitDifference: 2e-4 }), { ...limits, split: 'Test' })!, /Test split logits/);
});

it.run();
