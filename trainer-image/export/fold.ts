/**
 * Batch-norm folding: at inference a batch normalization is an affine map per channel with constant coefficients, so it
 * becomes part of the convolution before it (Jacob et al. 2018, section 3.2).
 */
import type { Graph, GraphNode } from '../models/graph.ts';
import type { Weights } from '../models/weights.ts';

/**
 * `graph` without the batch normalizations that follow a convolution whose value nobody else takes, and weights in which those
 * convolutions have `<node>.weight` scaled and a `<node>.bias`. Other normalizations stay. Neither argument is changed.
 */
export function foldBatchNorms(graph: Graph, weights: Weights): { graph: Graph; weights: Weights } {
  const users = new Map<string, number>([[graph.output, 1]]);
  for (const name of graph.nodes.flatMap((node): readonly string[] => node.inputs)) {
    users.set(name, (users.get(name) ?? 0) + 1);
  }
  const byName = new Map(graph.nodes.map((node) => [node.name, node]));
  const folded: Weights = new Map(weights);
  /** Value of a folded normalization → value of the convolution that now makes it. */
  const renamed = new Map<string, string>();
  const nodes: GraphNode[] = [];
  for (const node of graph.nodes) {
    const before = byName.get(node.inputs[0]);
    if (node.op === 'BatchNorm' && before?.op === 'Conv' && users.get(before.name) === 1) {
      foldInto(folded, before.name, node.name, node.epsilon);
      renamed.set(node.name, before.name);
    } else {
      const inputs = node.inputs.map((name) => renamed.get(name) ?? name);
      nodes.push({ ...node, inputs } as unknown as GraphNode);
    }
  }
  return { graph: { ...graph, nodes, output: renamed.get(graph.output) ?? graph.output }, weights: folded };
}

/**
 * γ·(w∗x − μ)/√(σ²+ε) + β = (s·w)∗x + (β − s·μ) with s = γ/√(σ²+ε); computed in double precision and rounded once. Zero padding
 * stays exact, for it is of x, which is unchanged.
 */
function foldInto(weights: Weights, conv: string, norm: string, epsilon: number): void {
  const { shape, data } = take(weights, `${conv}.weight`);
  const gamma = take(weights, `${norm}.weight`).data;
  const beta = take(weights, `${norm}.bias`).data;
  const mean = take(weights, `${norm}.running_mean`).data;
  const variance = take(weights, `${norm}.running_var`).data;
  const perFilter = data.length / gamma.length;
  const scaled = new Float32Array(data.length);
  const bias = new Float32Array(gamma.length);
  for (let filter = 0; filter < gamma.length; filter++) {
    const scale = gamma[filter]! / Math.sqrt(variance[filter]! + epsilon);
    for (let i = filter * perFilter; i < (filter + 1) * perFilter; i++) scaled[i] = data[i]! * scale;
    bias[filter] = beta[filter]! - mean[filter]! * scale;
  }
  weights.set(`${conv}.weight`, { shape, data: scaled });
  weights.set(`${conv}.bias`, { shape: [bias.length], data: bias });
  for (const suffix of ['weight', 'bias', 'running_mean', 'running_var']) weights.delete(`${norm}.${suffix}`);
}

function take(weights: Weights, name: string) {
  const tensor = weights.get(name);
  if (!tensor) throw new Error(`the model has no weights ${name}`);
  return tensor;
}
