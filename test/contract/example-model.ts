/** A model as export makes it, with weights that were drawn instead of trained. */
import type { Colour, Model, ModelCard, OnnxFormat } from '../../trainer-image/contract.ts';
import { buildModel } from '../../trainer-image/export/build.ts';
import { foldBatchNorms } from '../../trainer-image/export/fold.ts';
import { encodeModel } from '../../trainer-image/export/onnx.ts';
import { randomWeights } from '../../trainer-image/export/reference.ts';
import { createModel } from '../../trainer-image/models/factory.ts';

export const SOURCE = `sha256:${'5'.repeat(64)}`;

export function exampleCard(model: Model, colour: Colour): ModelCard {
  return {
    format: 'fovea.dev/model/v1',
    model,
    classes: ['ankle boot', 'bag', 'ünïcode', 'coat', 'dress', 'sandal', 'shirt'],
    preprocessing: {
      format: 'fovea.dev/preprocessing/v1',
      colour,
      ...model.inputSize,
      kernel: 'lanczos3',
      mean: colour === 'Grey' ? [0.28] : [0.49, 0.48, 0.44],
      std: colour === 'Grey' ? [0.35] : [0.24, 0.25, 0.26],
    },
    dataset: `sha256:${'d'.repeat(64)}`,
    epoch: 3,
    metrics: [{ name: 'ValidationAccuracy', value: 0.9125 }],
  };
}

/** The ONNX file, and the graph and weights it was made from. */
export function exampleModel(card: ModelCard, format: Partial<OnnxFormat> = {}) {
  const channels = card.preprocessing.mean.length;
  const graph = createModel(card.model, { channels, classes: card.classes.length });
  const weights = randomWeights(graph);
  const folded = foldBatchNorms(graph, weights);
  const complete = { opset: 17, dynamicBatch: true, foldNormalization: true, ...format };
  return { graph, weights, bytes: encodeModel(buildModel(folded.graph, folded.weights, card, SOURCE, complete)) };
}
