/** Targets of the cross-entropy. */

/**
 * Rows of target probabilities `[N, classes]`: 1 − s + s / classes for the label and s / classes elsewhere (Szegedy et al. 2016;
 * PyTorch's `label_smoothing`).
 */
export function smoothTargets(labels: ArrayLike<number>, classes: number, smoothing: number): Float32Array {
  const targets = new Float32Array(labels.length * classes).fill(smoothing / classes);
  for (let i = 0; i < labels.length; i++) targets[i * classes + labels[i]!]! += 1 - smoothing;
  return targets;
}
