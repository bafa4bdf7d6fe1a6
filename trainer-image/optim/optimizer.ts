/** What an optimizer does, as numbers; the engine carries it out. */
import type { Optimizer } from '../contract.ts';
import type { Parameter } from '../models/graph.ts';

/** An optimizer with all its options resolved. */
export type ResolvedOptimizer =
  | { type: 'SGD'; weightDecay: number; decayNormsAndBiases: boolean; momentum: number; nesterov: boolean }
  | {
      type: 'AdamW';
      weightDecay: number;
      decayNormsAndBiases: boolean;
      beta1: number;
      beta2: number;
      epsilon: number;
    };

export function resolveOptimizer(optimizer: Optimizer): ResolvedOptimizer {
  const { type, weightDecay, decayNormsAndBiases } = optimizer;
  return type === 'SGD'
    ? { type, weightDecay, decayNormsAndBiases, momentum: 0.9, nesterov: true, ...optimizer.sgd }
    : { type, weightDecay, decayNormsAndBiases, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, ...optimizer.adamW };
}

/** Names of the state that an optimizer keeps for each parameter, of the parameter's shape, 0 at first. */
export const SLOTS = { SGD: ['momentum'], AdamW: ['first_moment', 'second_moment'] } as const;

/** Whether weight decay applies: weights always, norms and biases only if asked for. */
export function isDecayed(parameter: Pick<Parameter, 'role'>, optimizer: ResolvedOptimizer): boolean {
  if (optimizer.weightDecay === 0) return false;
  return optimizer.decayNormsAndBiases || parameter.role === 'ConvWeight' || parameter.role === 'DenseWeight';
}

/**
 * Numbers of Adam's update at `step` (from 0) for an op that computes
 * w ← w − rate · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε′), t = step + 1. PyTorch (and Loshchilov and Hutter 2019) add ε to the
 * bias-corrected √v instead, which is ε′ = ε · √(1 − β₂ᵗ).
 */
export function adamNumbers(
  { beta1, beta2, epsilon }: { beta1: number; beta2: number; epsilon: number },
  step: number,
): { beta1Power: number; beta2Power: number; epsilon: number } {
  const beta2Power = beta2 ** (step + 1);
  return { beta1Power: beta1 ** (step + 1), beta2Power, epsilon: epsilon * Math.sqrt(1 - beta2Power) };
}

/**
 * Factor by which gradients are scaled so that their global norm is at most `limit` (Pascanu et al. 2013; PyTorch's
 * clip_grad_norm_, whose 1e-6 keeps a norm of 0 harmless). 1 if they are within it.
 */
export function clipFactor(norm: number, limit: number): number {
  return Math.min(1, limit / (norm + 1e-6));
}
