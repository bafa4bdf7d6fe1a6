/**
 * Carries out an optimizer on variables, with TensorFlow's own training ops: one pass over each parameter, in place, and one more
 * for weight decay.
 */
import type { Parameter } from '../models/graph.ts';
import { adamNumbers, isDecayed, type ResolvedOptimizer, SLOTS } from '../optim/optimizer.ts';
import { attribute, execute, executeAll, release, scalar, type Tensor, type Variable, variable } from './tfjs.ts';

export interface Updater {
  /** Applies the gradients (by parameter name, not released) at a learning rate; `step` counts from 0. */
  apply(gradients: ReadonlyMap<string, Tensor>, learningRate: number, step: number): void;
  /** State variables by `<slot>.<parameter>`. */
  slots: ReadonlyMap<string, { parameter: Parameter; variable: Variable }>;
  release(): void;
}

export function createUpdater(
  targets: readonly { parameter: Parameter; variable: Variable }[],
  optimizer: ResolvedOptimizer,
): Updater {
  const T = attribute.float32('T');
  const unlocked = attribute.boolean('use_locking', false);
  const slots = new Map<string, { parameter: Parameter; variable: Variable }>();
  for (const { parameter, variable: target } of targets) {
    for (const slot of SLOTS[optimizer.type]) {
      const size = target.shape.reduce((a, b) => a * b, 1);
      const state = variable(new Float32Array(size), target.shape);
      slots.set(`${slot}.${parameter.name}`, { parameter, variable: state });
    }
  }
  const slot = (name: string, parameter: Parameter) => slots.get(`${name}.${parameter.name}`)!.variable.handle;

  /** `use` gets scalars of these values, which live while it runs. */
  const withScalars = (values: readonly number[], use: (scalars: Tensor[]) => void) => {
    const scalars = values.map(scalar);
    use(scalars);
    release(...scalars);
  };

  const applySGD = (gradients: ReadonlyMap<string, Tensor>, rate: number) => {
    if (optimizer.type !== 'SGD') return;
    const attributes = [T, unlocked, attribute.boolean('use_nesterov', optimizer.nesterov)];
    withScalars([rate, optimizer.momentum, optimizer.weightDecay], ([lr, momentum, decay]) => {
      for (const { parameter, variable: target } of targets) {
        let gradient = gradients.get(parameter.name)!;
        const decayed = isDecayed(parameter, optimizer);
        if (decayed) {
          const value = target.read();
          const pull = execute('Mul', [T], [value, decay!]);
          gradient = execute('AddV2', [T], [gradient, pull]);
          release(value, pull);
        }
        const inputs = [target.handle, slot('momentum', parameter), lr!, gradient, momentum!];
        executeAll('ResourceApplyMomentum', attributes, inputs, 0);
        if (decayed) release(gradient);
      }
    });
  };

  const applyAdamW = (gradients: ReadonlyMap<string, Tensor>, rate: number, step: number) => {
    if (optimizer.type !== 'AdamW') return;
    const { beta1, beta2, weightDecay } = optimizer;
    const { beta1Power, beta2Power, epsilon } = adamNumbers(optimizer, step);
    const attributes = [T, unlocked, attribute.boolean('use_nesterov', false)];
    const numbers = [beta1Power, beta2Power, rate, beta1, beta2, epsilon, 1 - rate * weightDecay];
    withScalars(numbers, (scalars) => {
      const shrink = scalars.pop()!;
      for (const { parameter, variable: target } of targets) {
        if (isDecayed(parameter, optimizer)) {
          const value = target.read();
          const shrunk = execute('Mul', [T], [value, shrink]);
          release(value);
          target.assign(shrunk);
          release(shrunk);
        }
        const state = [slot('first_moment', parameter), slot('second_moment', parameter)];
        const inputs = [target.handle, ...state, ...scalars, gradients.get(parameter.name)!];
        executeAll('ResourceApplyAdam', attributes, inputs, 0);
      }
      release(shrink);
    });
  };

  return {
    slots,
    apply: optimizer.type === 'SGD' ? applySGD : applyAdamW,
    release() {
      for (const { variable: state } of slots.values()) state.release();
    },
  };
}
