/**
 * Inference requests and answers of the Open Inference Protocol v2 over REST
 * (https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md), with Triton's
 * extension by which tensors follow the JSON as bytes (extension_binary_data.md there). Pure: bytes in, plain data out.
 */
import { z } from 'zod';
import type { Pixels } from './batcher.ts';
import type { ServedModel } from './model.ts';

/** A server has one model in one version: another version is another revision, with pods of its own. */
export const VERSION = '1';

/** A request that is answered with an error: `status` is HTTP's, `reason` is for programs. */
export class RequestError extends Error {
  readonly status: number;
  readonly reason: string;

  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

const invalid = (message: string) => new RequestError(400, 'InvalidRequest', message);

export interface InferRequest {
  id?: string;
  count: number;
  /** [count, C, H, W]. */
  pixels: Pixels;
  /** True if the logits are to follow the JSON as bytes. */
  binaryOutput: boolean;
}

/** The request's JSON. Members that the protocol does not know are ignored, parameters are not: they may change the meaning. */
const Body = z.object({
  id: z.string().max(1024).optional(),
  inputs: z
    .array(
      z.object({
        name: z.string(),
        shape: z.array(z.int().min(0)).max(8),
        datatype: z.string(),
        data: z.unknown().optional(),
        parameters: z.strictObject({ binary_data_size: z.int().min(0).optional() }).optional(),
      }),
    )
    .max(8),
  outputs: z
    .array(
      z.object({
        name: z.string(),
        parameters: z.strictObject({ binary_data: z.boolean().optional() }).optional(),
      }),
    )
    .max(8)
    .optional(),
  parameters: z.strictObject({ binary_data_output: z.boolean().optional() }).optional(),
});

/**
 * @param headerLength Value of `Inference-Header-Content-Length`: bytes of JSON before the tensors' bytes. Absent: all is JSON;
 * `0`: one picture's bytes and no JSON.
 * @throws RequestError 400 that names what is wrong.
 */
export function parseInferRequest(
  body: Buffer,
  headerLength: string | undefined,
  { input, output }: Pick<ServedModel, 'input' | 'output'>,
  maxBatchSize: number,
): InferRequest {
  const jsonLength = headerLength === undefined ? body.length : Number(headerLength);
  if (!/^[0-9]+$/.test(headerLength ?? '0') || jsonLength > body.length) {
    throw invalid(`Inference-Header-Content-Length is ${headerLength}, and the body has ${body.length} bytes`);
  }
  const elements = input.shape[0] * input.shape[1] * input.shape[2];
  if (headerLength !== undefined && jsonLength === 0) {
    return { count: 1, pixels: binaryPixels(body, elements, input), binaryOutput: true };
  }

  const request = parseBody(body.subarray(0, jsonLength));
  const [tensor] = request.inputs;
  if (request.inputs.length !== 1 || tensor?.name !== input.name) {
    const names = request.inputs.map(({ name }) => JSON.stringify(name)).join(', ');
    throw invalid(`inputs: the model takes one input, "${input.name}", and the request has ${names || 'none'}`);
  }
  const at = `input "${input.name}"`;
  if (tensor.datatype !== input.datatype) {
    throw invalid(`${at}: its datatype is ${input.datatype}, not ${JSON.stringify(tensor.datatype)}`);
  }
  const [count, ...shape] = tensor.shape;
  if (count === undefined || String(shape) !== String(input.shape)) {
    throw invalid(`${at}: its shape is [N, ${input.shape.join(', ')}], not [${tensor.shape.join(', ')}]`);
  }
  if (count < 1 || count > maxBatchSize) {
    throw invalid(`${at}: a request has 1 to ${maxBatchSize} pictures, not ${count}`);
  }
  const following = body.subarray(jsonLength);
  const binarySize = tensor.parameters?.binary_data_size;
  if ((binarySize ?? 0) !== following.length) {
    throw invalid(
      `${at}: binary_data_size is ${binarySize ?? 'absent'}, and ${following.length} bytes follow the JSON`,
    );
  }
  if (binarySize !== undefined && tensor.data !== undefined) {
    throw invalid(`${at}: it has both data and binary_data_size`);
  }
  const pixels =
    binarySize === undefined
      ? jsonPixels(tensor.data, count * elements, input)
      : binaryPixels(following, count * elements, input);

  const outputs = request.outputs ?? [];
  const unknown = outputs.find(({ name }) => name !== output.name);
  if (unknown)
    throw invalid(`outputs: the model has one output, "${output.name}", not ${JSON.stringify(unknown.name)}`);
  if (outputs.length > 1) throw invalid(`outputs: "${output.name}" is asked for ${outputs.length} times`);
  const binaryOutput = outputs[0]?.parameters?.binary_data ?? request.parameters?.binary_data_output ?? false;
  return { ...(request.id !== undefined && { id: request.id }), count, pixels, binaryOutput };
}

function parseBody(json: Buffer): z.infer<typeof Body> {
  let value: unknown;
  try {
    value = JSON.parse(json.toString());
  } catch (error) {
    throw invalid(`the body is not JSON: ${(error as Error).message}`);
  }
  const parsed = Body.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw invalid(`${issue!.path.join('.') || 'the body'}: ${issue!.message}`);
}

/** Little-endian, row-major, whole. */
function binaryPixels(bytes: Buffer, elements: number, { name, datatype }: ServedModel['input']): Pixels {
  const size = datatype === 'UINT8' ? 1 : 4;
  if (bytes.length !== elements * size) {
    throw invalid(
      `input "${name}": ${elements} elements of ${datatype} are ${elements * size} bytes, not ${bytes.length}`,
    );
  }
  if (datatype === 'UINT8') return bytes;
  const pixels = new Float32Array(elements);
  new Uint8Array(pixels.buffer).set(bytes);
  const at = pixels.findIndex((value) => !Number.isFinite(value));
  if (at !== -1) throw invalid(`input "${name}": element ${at} is ${pixels[at]}`);
  return pixels;
}

/** Flat or nested in any way, row-major. */
function jsonPixels(data: unknown, elements: number, { name, datatype }: ServedModel['input']): Pixels {
  const pixels = datatype === 'UINT8' ? new Uint8Array(elements) : new Float32Array(elements);
  let filled = 0;
  const fill = (part: unknown, depth: number) => {
    if (!Array.isArray(part) || depth > 4) throw invalid(`input "${name}": data must be an array of at most 4 levels`);
    for (const value of part) {
      if (typeof value === 'number') {
        const fits =
          datatype === 'UINT8' ? Number.isInteger(value) && value >= 0 && value <= 255 : Number.isFinite(value);
        if (!fits) throw invalid(`input "${name}": data[${filled}] is ${value}, which is no ${datatype}`);
        if (filled < elements) pixels[filled] = value;
        filled++;
      } else {
        fill(value, depth + 1);
      }
    }
  };
  fill(data, 1);
  if (filled !== elements) throw invalid(`input "${name}": its shape has ${elements} elements, and data has ${filled}`);
  return pixels;
}

/** An answer: JSON, and the bytes that follow it, if any. */
export interface InferResponse {
  json: string;
  binary?: Uint8Array;
}

export function renderInferResponse(
  request: InferRequest,
  logits: Float32Array,
  modelName: string,
  output: ServedModel['output'],
): InferResponse {
  const { id, count, binaryOutput } = request;
  const binary = new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength);
  const tensor = {
    name: output.name,
    datatype: 'FP32',
    shape: [count, output.width],
    ...(binaryOutput ? { parameters: { binary_data_size: binary.length } } : { data: [...logits] }),
  };
  const json = JSON.stringify({ model_name: modelName, model_version: VERSION, id, outputs: [tensor] });
  return { json, ...(binaryOutput && { binary }) };
}
