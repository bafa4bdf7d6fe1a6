/** Inference: pixels to logits with the running statistics. */
import { type Graph, listParameters } from '../models/graph.ts';
import { checkWeights, type Weights } from '../models/weights.ts';
import { engineShape, toEngine } from './layout.ts';
import { createNetwork, createNormalizer, type Normalization } from './network.ts';
import { loadEngine, read, release, tensor } from './tfjs.ts';

export interface Inference {
  /** `pixels` is uint8 `[n, H, W, C]`; the logits are `[n, classes]`, row by row. Blocks until they are there. */
  logits(pixels: Uint8Array, n: number): Float32Array;
  /** Frees the engine's memory. */
  release(): void;
}

/** `threads` counts only if the engine is not loaded yet. */
export function createInference(
  graph: Graph,
  weights: Weights,
  { threads, ...normalization }: Normalization & { threads?: number },
): Inference {
  checkWeights(graph, weights);
  loadEngine(threads);
  const network = createNetwork(graph);
  const normalizer = createNormalizer(normalization);
  const parameters = new Map(
    listParameters(graph).map((parameter) => [
      parameter.name,
      tensor(toEngine(parameter, weights.get(parameter.name)!.data.slice()), engineShape(parameter)),
    ]),
  );
  const { height, width, channels } = graph.input;
  return {
    logits(pixels, n) {
      const output = network.infer(normalizer.normalize(pixels, [n, height, width, channels]), parameters);
      const logits = read(output);
      release(output);
      return logits;
    },
    release() {
      network.release();
      normalizer.release();
      release(...parameters.values());
    },
  };
}
