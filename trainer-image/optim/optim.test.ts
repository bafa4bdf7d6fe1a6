import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Optimizer } from '../contract.ts';
import { smoothTargets } from './loss.ts';
import { clipFactor, isDecayed, resolveOptimizer } from './optimizer.ts';
import { learningRate } from './schedule.ts';

const it = suite('optim');
const near = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-7, `${a} is not ${b}`);

it('rises linearly to the peak and falls along half a cosine to 0', () => {
  const schedule = { type: 'Cosine', warmupSteps: 4 } as const;
  const rates = Array.from({ length: 13 }, (_, step) => learningRate(schedule, 0.8, step, 12));
  for (const [step, rate] of [0.2, 0.4, 0.6, 0.8].entries()) near(rates[step]!, rate);
  near(rates[4]!, 0.8);
  near(rates[8]!, 0.4);
  near(rates[12]!, 0);
});

it('stays at the peak with a constant schedule', () => {
  assert.is(learningRate({ type: 'Constant', warmupSteps: 0 }, 0.1, 999, 1000), 0.1);
});

it('never divides by zero when the warm-up is as long as the training', () => {
  for (let step = 0; step < 3; step++) {
    assert.ok(learningRate({ type: 'Cosine', warmupSteps: 10 }, 1, step, 3) > 0);
  }
});

it('spreads the smoothed mass over all classes as PyTorch does', () => {
  const targets = smoothTargets([2, 0], 4, 0.1);
  const expected = [0.025, 0.025, 0.925, 0.025, 0.925, 0.025, 0.025, 0.025];
  for (const [i, value] of expected.entries()) near(targets[i]!, value);
});

it('decays weights, and norms and biases only if asked to', () => {
  const decayed = (options: object) =>
    (['ConvWeight', 'DenseWeight', 'NormScale', 'NormShift', 'Bias'] as const).filter((role) =>
      isDecayed({ role }, resolveOptimizer(Optimizer.parse(options))),
    );
  assert.equal(decayed({}), ['ConvWeight', 'DenseWeight']);
  assert.is(decayed({ decayNormsAndBiases: true }).length, 5);
  assert.is(decayed({ weightDecay: 0, decayNormsAndBiases: true }).length, 0);
});

it('clips to the norm, and leaves smaller gradients alone', () => {
  near(clipFactor(4, 1), 1 / (4 + 1e-6));
  assert.is(clipFactor(0.5, 1), 1);
  assert.is(clipFactor(0, 1), 1);
});

it.run();
