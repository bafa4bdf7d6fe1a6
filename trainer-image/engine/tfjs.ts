/**
 * The one place that touches tfjs-node: its binding, which is TensorFlow's eager C API with tensors as numbered handles. Ops are
 * called by TensorFlow's own names, so fused ones that TensorFlow.js does not expose are there too. There is no garbage collector:
 * who gets a tensor releases it.
 *
 * Every call blocks until its result is there. Use it in a process that has nothing else to answer.
 */
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { TrainerError } from '../errors.ts';
import { sizeOf } from '../models/graph.ts';

export interface Tensor {
  readonly id: number;
  readonly shape: readonly number[];
}

interface Attribute {
  name: string;
  type: number;
  value: unknown;
}

type Values = Float32Array | Int32Array | Uint8Array;

interface Binding {
  readonly TF_FLOAT: number;
  readonly TF_INT32: number;
  readonly TF_UINT8: number;
  readonly TF_ATTR_TYPE: number;
  readonly TF_ATTR_FLOAT: number;
  readonly TF_ATTR_INT: number;
  readonly TF_ATTR_BOOL: number;
  readonly TF_ATTR_STRING: number;
  readonly TF_ATTR_SHAPE: number;
  readonly TF_Version: string;
  /** Shares the memory of `values`, which must not change while the tensor lives. */
  createTensor(shape: readonly number[], dtype: number, values: Values): number;
  deleteTensor(id: number): void;
  /** A copy. */
  tensorDataSync(id: number): Values;
  executeOp(name: string, attributes: readonly Attribute[], inputs: readonly number[], outputs: number): Tensor[];
  getNumOfTensors(): number;
}

let loaded: Binding | undefined;

/**
 * Loads TensorFlow with this many threads (default: the CPUs that this process may use). The first call decides.
 * @throws TrainerError EngineNotInstalled
 */
export function loadEngine(threads: number = availableParallelism()): void {
  if (loaded) return;
  // TensorFlow reads these once, when it is loaded. With one thread between ops, ops run in the order they are called.
  process.env.TF_NUM_INTRAOP_THREADS = String(threads);
  process.env.TF_NUM_INTEROP_THREADS = '1';
  // Its default is to use oneDNN's kernels on processors with AVX-512 only; they are the fastest with AVX2 too.
  process.env.TF_ENABLE_ONEDNN_OPTS ??= '1';
  process.env.TF_CPP_MIN_LOG_LEVEL ??= '2';
  try {
    loaded = createRequire(import.meta.url)('@tensorflow/tfjs-node/lib/napi-v8/tfjs_binding.node') as Binding;
  } catch (cause) {
    throw new TrainerError(
      'EngineNotInstalled',
      `the training engine cannot be loaded (${(cause as Error).message.split('\n')[0]}): run \`npm run setup\``,
      { cause },
    );
  }
}

function binding(): Binding {
  if (!loaded) loadEngine();
  return loaded!;
}

/** Version of the TensorFlow library. */
export function engineVersion(): string {
  return binding().TF_Version;
}

/** Handles that live now; for finding leaks. */
export function tensorCount(): number {
  return binding().getNumOfTensors();
}

/** A tensor of a typed array: float32, int32 or uint8. It shares the array's memory: leave that alone until release. */
export function tensor(values: Values, shape: readonly number[]): Tensor {
  const b = binding();
  if (values.length !== sizeOf(shape)) throw new RangeError(`${values.length} values do not fill [${shape}]`);
  const dtype = values instanceof Float32Array ? b.TF_FLOAT : values instanceof Int32Array ? b.TF_INT32 : b.TF_UINT8;
  return { id: b.createTensor(shape, dtype, values), shape };
}

export function scalar(value: number): Tensor {
  return tensor(Float32Array.of(value), []);
}

/** The values of a float32 tensor, copied. */
export function read(t: Tensor): Float32Array {
  return binding().tensorDataSync(t.id) as Float32Array;
}

export function release(...tensors: readonly (Tensor | undefined)[]): void {
  for (const t of tensors) if (t) loaded!.deleteTensor(t.id);
}

/** Attributes of ops; `float` and the like are the type's number in TensorFlow. */
export const attribute = {
  /** The float32 type as attribute `name`. */
  float32: (name: string): Attribute => ({ name, type: binding().TF_ATTR_TYPE, value: binding().TF_FLOAT }),
  int32: (name: string): Attribute => ({ name, type: binding().TF_ATTR_TYPE, value: binding().TF_INT32 }),
  uint8: (name: string): Attribute => ({ name, type: binding().TF_ATTR_TYPE, value: binding().TF_UINT8 }),
  number: (name: string, value: number): Attribute => ({ name, type: binding().TF_ATTR_FLOAT, value }),
  integer: (name: string, value: number | readonly number[]): Attribute => ({
    name,
    type: binding().TF_ATTR_INT,
    value,
  }),
  boolean: (name: string, value: boolean): Attribute => ({ name, type: binding().TF_ATTR_BOOL, value }),
  string: (name: string, value: string): Attribute => ({ name, type: binding().TF_ATTR_STRING, value }),
  shape: (name: string, value: readonly number[]): Attribute => ({ name, type: binding().TF_ATTR_SHAPE, value }),
};
export type { Attribute };

/** Runs an op with one output. */
export function execute(op: string, attributes: readonly Attribute[], inputs: readonly Tensor[]): Tensor {
  return executeAll(op, attributes, inputs, 1)[0]!;
}

/** Runs an op with `outputs` outputs. */
export function executeAll(
  op: string,
  attributes: readonly Attribute[],
  inputs: readonly Tensor[],
  outputs: number,
): Tensor[] {
  return loaded!.executeOp(
    op,
    attributes,
    inputs.map((t) => t.id),
    outputs,
  );
}

let variables = 0;

/** A float32 variable in TensorFlow's memory, which ops update in place. */
export interface Variable {
  readonly shape: readonly number[];
  /** The resource handle, an input of `ResourceApply…` ops. */
  readonly handle: Tensor;
  /** The value, sharing the variable's memory; while it lives, an update copies first. The caller releases it. */
  read(): Tensor;
  assign(value: Tensor): void;
  /** Frees the memory too. */
  release(): void;
}

export function variable(values: Float32Array, shape: readonly number[]): Variable {
  const float = attribute.float32('dtype');
  const handle = execute(
    'VarHandleOp',
    [
      attribute.string('container', ''),
      attribute.string('shared_name', `variable-${variables++}`),
      float,
      attribute.shape('shape', shape),
    ],
    [],
  );
  const assign = (value: Tensor) => void executeAll('AssignVariableOp', [float], [handle, value], 0);
  // A copy, because the variable would otherwise go on sharing the array's memory.
  const initial = tensor(values.slice(), shape);
  assign(initial);
  release(initial);
  return {
    shape,
    handle,
    read: () => execute('ReadVariableOp', [float], [handle]),
    assign,
    release() {
      executeAll('DestroyResourceOp', [attribute.boolean('ignore_lookup_error', true)], [handle], 0);
      release(handle);
    },
  };
}
