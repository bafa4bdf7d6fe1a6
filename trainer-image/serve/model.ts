/** A model as the server sees it: the ONNX file, held against what it says of itself, ready to run. */
import { availableParallelism } from 'node:os';
import type { Preprocessing } from '../contract.ts';
import { UserError } from '../errors.ts';
import { elementsOf } from '../export/input.ts';
import { readMetadata, type ServingContract } from '../export/metadata.ts';
import { readHeader } from '../export/onnx.ts';
import type { Pixels, RunResult } from './batcher.ts';
import { openInference, type ValueMetadata } from './inference.ts';

/** Data types by their names in the Open Inference Protocol. */
export type Datatype = 'UINT8' | 'FP32';

export interface ServedModel extends ServingContract {
  digest: string;
  input: {
    name: string;
    datatype: Datatype;
    /** [C, H, W]. */
    shape: readonly [number, number, number];
    /** True if any number of pictures may run at once, false if only one. */
    openBatch: boolean;
  };
  output: { name: string /** Number of classes. */; width: number };
  /** Runs `count` pictures, [count, C, H, W]; the tensor's memory is handed over. */
  run(pixels: Pixels, count: number): Promise<RunResult>;
  /** Rejects if the model can run no more; never resolves. */
  broken: Promise<never>;
  close(): Promise<void>;
}

/**
 * @param bytes The file, whose digest was verified.
 * @param threads Default: the CPUs of the machine.
 * @throws UserError ModelRefused that says why, if this is no model that Fovea exported or ONNX Runtime does not take it.
 */
export async function openModel(
  bytes: Uint8Array,
  digest: string,
  threads = availableParallelism(),
): Promise<ServedModel> {
  const refuse = (why: string, cause?: unknown) =>
    new UserError('ModelRefused', `model ${digest} cannot be served: ${why}`, { cause });
  let contract: ServingContract;
  try {
    contract = readMetadata(readHeader(bytes).metadata);
  } catch (error) {
    if (error instanceof RangeError) throw refuse(`${error.message}; serve a model that was made by export`, error);
    throw error;
  }
  const inference = await openInference(bytes, threads).catch((error: unknown) => {
    if (error instanceof RangeError) throw refuse(`ONNX Runtime says: ${error.message}`, error);
    throw error;
  });
  try {
    const input = describeInput(inference.inputs, contract.preprocessing);
    const output = describeOutput(inference.outputs, contract.classes.length);
    const model: ServedModel = {
      ...contract,
      digest,
      input,
      output,
      broken: inference.broken,
      close: inference.close,
      async run(pixels, count) {
        const { logits, dims, computeTime } = await inference.run(pixels, [count, ...input.shape]);
        if (dims.length !== 2 || dims[0] !== count || dims[1] !== output.width) {
          throw new Error(`its output is [${dims}], not [${count}, ${output.width}]`);
        }
        return { logits, computeTime };
      },
    };
    // The first run allocates; and a model that cannot run is refused here, before it is ready.
    const elements = elementsOf(contract.preprocessing);
    await model
      .run(input.datatype === 'UINT8' ? new Uint8Array(elements) : new Float32Array(elements), 1)
      .catch((error: Error) => {
        throw new RangeError(`a first run failed: ${error.message}`, { cause: error });
      });
    return model;
  } catch (error) {
    await inference.close();
    if (error instanceof RangeError) throw refuse(error.message, error);
    throw error;
  }
}

const describe = (values: readonly ValueMetadata[]) =>
  values.map((v) => `${v.name} ${v.isTensor ? `${v.type} [${v.shape}]` : '(no tensor)'}`).join(', ');

function describeInput(inputs: readonly ValueMetadata[], preprocessing: Preprocessing): ServedModel['input'] {
  const { colour, height, width } = preprocessing;
  const shape = [colour === 'Grey' ? 1 : 3, height, width] as const;
  const [input] = inputs;
  const fits =
    inputs.length === 1 &&
    input?.isTensor &&
    (input.type === 'uint8' || input.type === 'float32') &&
    String(input.shape.slice(1)) === String(shape) &&
    (typeof input.shape[0] === 'string' || input.shape[0] === 1);
  if (!fits) {
    const wanted = `one input of uint8 or float32, [N or 1, ${shape.join(', ')}]`;
    throw new RangeError(`its preprocessing gives ${wanted}, and it takes ${describe(inputs)}`);
  }
  return {
    name: input.name,
    datatype: input.type === 'uint8' ? 'UINT8' : 'FP32',
    shape,
    openBatch: typeof input.shape[0] === 'string',
  };
}

function describeOutput(outputs: readonly ValueMetadata[], classes: number): ServedModel['output'] {
  const [output] = outputs;
  const fits =
    outputs.length === 1 &&
    output?.isTensor &&
    output.type === 'float32' &&
    output.shape.length === 2 &&
    output.shape[1] === classes;
  if (!fits) {
    const wanted = `one output of float32, [N, ${classes}]`;
    throw new RangeError(`it names ${classes} classes, which is ${wanted}, and it gives ${describe(outputs)}`);
  }
  return { name: output.name, width: classes };
}
