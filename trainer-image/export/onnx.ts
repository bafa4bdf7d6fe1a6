/**
 * ONNX files: the part of `onnx.proto` (ONNX 1.23, IR version 10) that classifiers need, encoded and decoded with protobufjs.
 * Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; unknown fields are skipped on reading.
 */
import protobuf from 'protobufjs/light.js';

/** A protobuf message, and so an ONNX file with its weights inside, is below 2 GiB. */
const MAX_MODEL_BYTES = 2 ** 31 - 1;

/** `TensorProto.DataType`, and the name of the same type in the Open Inference Protocol. */
export const DATA_TYPE = { FP32: 1, UINT8: 2, INT64: 7 } as const;
export type DataType = keyof typeof DATA_TYPE;

/** `AttributeProto.AttributeType` */
const ATTRIBUTE_TYPE = { FLOAT: 1, INT: 2, STRING: 3, INTS: 7 } as const;

/** A dimension: its size, or the name of one that is known at run time only. */
export type Dimension = number | string;

export interface ValueInfo {
  name: string;
  dataType: DataType;
  shape: readonly Dimension[];
}

export interface Initializer {
  name: string;
  dataType: DataType;
  shape: readonly number[];
  /** Little-endian, row-major. */
  data: Float32Array | BigInt64Array;
}

/** Integers, lists of integers and strings are told by their JavaScript type; a float is wrapped. */
export type Attribute = number | readonly number[] | string | { float: number };

export interface OnnxNode {
  opType: string;
  name: string;
  inputs: readonly string[];
  outputs: readonly string[];
  attributes?: Record<string, Attribute>;
}

export interface OnnxModel {
  irVersion: number;
  /** Version of the default operator set, `ai.onnx`. */
  opset: number;
  producerName: string;
  producerVersion: string;
  metadata: Record<string, string>;
  graph: {
    name: string;
    nodes: readonly OnnxNode[];
    initializers: readonly Initializer[];
    inputs: readonly ValueInfo[];
    outputs: readonly ValueInfo[];
  };
}

/** What a reader wants to know of a file before it is run. */
export interface OnnxHeader {
  irVersion: number;
  opset: number;
  producerName: string;
  metadata: Record<string, string>;
}

const one = (type: string, id: number) => ({ type, id });
const many = (type: string, id: number) => ({ rule: 'repeated', type, id, options: { packed: false } });

const ModelProto = protobuf.Root.fromJSON({
  nested: {
    ModelProto: {
      fields: {
        irVersion: one('int64', 1),
        producerName: one('string', 2),
        producerVersion: one('string', 3),
        graph: one('GraphProto', 7),
        opsetImport: many('OperatorSetIdProto', 8),
        metadataProps: many('StringStringEntryProto', 14),
      },
    },
    OperatorSetIdProto: { fields: { domain: one('string', 1), version: one('int64', 2) } },
    StringStringEntryProto: { fields: { key: one('string', 1), value: one('string', 2) } },
    GraphProto: {
      fields: {
        node: many('NodeProto', 1),
        name: one('string', 2),
        initializer: many('TensorProto', 5),
        input: many('ValueInfoProto', 11),
        output: many('ValueInfoProto', 12),
      },
    },
    NodeProto: {
      fields: {
        input: many('string', 1),
        output: many('string', 2),
        name: one('string', 3),
        opType: one('string', 4),
        attribute: many('AttributeProto', 5),
      },
    },
    AttributeProto: {
      fields: {
        name: one('string', 1),
        f: one('float', 2),
        i: one('int64', 3),
        s: one('bytes', 4),
        t: one('TensorProto', 5),
        ints: many('int64', 8),
        type: one('int32', 20),
      },
    },
    TensorProto: {
      fields: {
        dims: many('int64', 1),
        dataType: one('int32', 2),
        name: one('string', 8),
        rawData: one('bytes', 9),
        dataLocation: one('int32', 14),
      },
    },
    ValueInfoProto: { fields: { name: one('string', 1), type: one('TypeProto', 2) } },
    TypeProto: { fields: { tensorType: one('TensorTypeProto', 1) } },
    TensorTypeProto: { fields: { elemType: one('int32', 1), shape: one('TensorShapeProto', 2) } },
    TensorShapeProto: { fields: { dim: many('DimensionProto', 1) } },
    DimensionProto: { fields: { dimValue: one('int64', 1), dimParam: one('string', 2) } },
  },
}).lookupType('ModelProto');

/**
 * The bytes of a model; the same model always gives the same bytes.
 * @throws RangeError if its weights do not fit one file.
 */
export function encodeModel(model: OnnxModel): Uint8Array {
  const weightBytes = model.graph.initializers.reduce((sum, { data }) => sum + data.byteLength, 0);
  // The rest of a model (names, nodes) is far below the 16 MiB kept for it.
  if (weightBytes > MAX_MODEL_BYTES - 2 ** 24) {
    throw new RangeError(`an ONNX file holds at most 2 GiB, and this network's weights have ${weightBytes} bytes`);
  }
  return ModelProto.encode(
    ModelProto.create({
      irVersion: model.irVersion,
      producerName: model.producerName,
      producerVersion: model.producerVersion,
      opsetImport: [{ domain: '', version: model.opset }],
      metadataProps: Object.entries(model.metadata).map(([key, value]) => ({ key, value })),
      graph: {
        name: model.graph.name,
        node: model.graph.nodes.map((node) => ({
          opType: node.opType,
          name: node.name,
          input: node.inputs,
          output: node.outputs,
          attribute: Object.entries(node.attributes ?? {}).map(([name, value]) => attributeProto(name, value)),
        })),
        initializer: model.graph.initializers.map(({ name, dataType, shape, data }) => ({
          name,
          dataType: DATA_TYPE[dataType],
          dims: shape,
          rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
        })),
        input: model.graph.inputs.map(valueInfoProto),
        output: model.graph.outputs.map(valueInfoProto),
      },
    }),
  ).finish();
}

function attributeProto(name: string, value: Attribute) {
  if (typeof value === 'number') return { name, type: ATTRIBUTE_TYPE.INT, i: value };
  if (typeof value === 'string') return { name, type: ATTRIBUTE_TYPE.STRING, s: Buffer.from(value) };
  if ('float' in value) return { name, type: ATTRIBUTE_TYPE.FLOAT, f: value.float };
  return { name, type: ATTRIBUTE_TYPE.INTS, ints: value };
}

function valueInfoProto({ name, dataType, shape }: ValueInfo) {
  const dim = shape.map((size) => (typeof size === 'number' ? { dimValue: size } : { dimParam: size }));
  return { name, type: { tensorType: { elemType: DATA_TYPE[dataType], shape: { dim } } } };
}

interface DecodedTensor {
  name: string;
  dataLocation: number;
}

interface DecodedModel {
  irVersion: number;
  producerName: string;
  opsetImport: { domain: string; version: number }[];
  metadataProps: { key: string; value: string }[];
  graph?: { initializer: DecodedTensor[]; node: { name: string; attribute: { t?: DecodedTensor }[] }[] };
}

/**
 * Reads what a file says of itself, and holds it to what is safe to run: one file, with its weights inside.
 * @throws RangeError with a sentence that says what is wrong with the file.
 */
export function readHeader(bytes: Uint8Array): OnnxHeader {
  if (bytes.length > MAX_MODEL_BYTES)
    throw new RangeError(`an ONNX file holds at most 2 GiB, not ${bytes.length} bytes`);
  let model: DecodedModel;
  try {
    const options = { longs: Number, arrays: true, defaults: true };
    model = ModelProto.toObject(ModelProto.decode(bytes), options) as DecodedModel;
  } catch (cause) {
    throw new RangeError(`not an ONNX file: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
  if (!model.graph) throw new RangeError('not an ONNX file: it has no graph');
  const tensors = model.graph.node
    .flatMap((node) => node.attribute.flatMap(({ t }) => (t ? [t] : [])))
    .concat(model.graph.initializer);
  // TensorProto.DataLocation.EXTERNAL: a path, which would be read from wherever the process may read.
  const external = tensors.find((tensor) => tensor.dataLocation !== 0);
  if (external) {
    throw new RangeError(
      `tensor ${JSON.stringify(external.name)} keeps its data in another file; save the model as one file`,
    );
  }
  const opset = model.opsetImport.find(({ domain }) => domain === '' || domain === 'ai.onnx')?.version;
  if (!opset) throw new RangeError('the ONNX file imports no operator set');
  return {
    irVersion: model.irVersion,
    opset,
    producerName: model.producerName,
    metadata: Object.fromEntries(model.metadataProps.map(({ key, value }) => [key, value])),
  };
}
