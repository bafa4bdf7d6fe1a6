/** Model files: a network's parameters in safetensors, with a `ModelCard` in the metadata that says all else about it. */
import { ModelCard } from '../contract.ts';
import { UserError } from '../errors.ts';
import { createModel } from '../models/factory.ts';
import type { Graph } from '../models/graph.ts';
import { checkWeights, type Weights } from '../models/weights.ts';
import { decodeSafetensors, encodeSafetensors } from './safetensors.ts';

/** Key of the metadata. */
const CARD = 'fovea';

export interface ModelFile {
  card: ModelCard;
  graph: Graph;
  weights: Weights;
}

/** The graph that a card describes. */
export function graphOf(card: Pick<ModelCard, 'model' | 'classes' | 'preprocessing'>): Graph {
  const channels = card.preprocessing.colour === 'Grey' ? 1 : 3;
  return createModel(card.model, { channels, classes: card.classes.length });
}

/** The file's content in pieces. */
export function encodeModel(card: ModelCard, weights: Weights): Buffer[] {
  return encodeSafetensors(weights, { [CARD]: JSON.stringify(ModelCard.parse(card)), format: 'pt' });
}

/**
 * A model from a file's content, its parameters held against its graph. `source` names the file in messages.
 * @throws UserError NotAModel
 */
export function decodeModel(bytes: Uint8Array, source: string): ModelFile {
  try {
    const { tensors, metadata } = decodeSafetensors(bytes);
    const text = metadata[CARD];
    if (text === undefined) throw new Error(`its metadata has no \`${CARD}\`, so it was not written by Fovea`);
    const card = ModelCard.parse(JSON.parse(text));
    const graph = graphOf(card);
    checkWeights(graph, tensors);
    return { card, graph, weights: tensors };
  } catch (cause) {
    const why = (cause as Error).message.slice(0, 300);
    throw new UserError('NotAModel', `${source} cannot be used as a model: ${why}`, { cause });
  }
}
