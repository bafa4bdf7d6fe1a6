/** Parameters at the engine's border: PyTorch's layouts outside (see graph.ts), TensorFlow's inside. */
import type { Parameter } from '../models/graph.ts';

/** The shape inside the engine: HWIO for convolutions, all else as outside. */
export function engineShape({ role, shape }: Pick<Parameter, 'role' | 'shape'>): readonly number[] {
  if (role !== 'ConvWeight') return shape;
  const [o, i, h, w] = shape as readonly [number, number, number, number];
  return [h, w, i, o];
}

/** OIHW → HWIO for convolutions; other values are returned as they are. */
export function toEngine({ role, shape }: Pick<Parameter, 'role' | 'shape'>, data: Float32Array): Float32Array {
  if (role !== 'ConvWeight') return data;
  const [outputs, inputs, height, width] = shape as readonly [number, number, number, number];
  const window = height * width;
  const moved = new Float32Array(data.length);
  let at = 0;
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      for (let p = 0; p < window; p++) moved[(p * inputs + i) * outputs + o] = data[at++]!;
    }
  }
  return moved;
}

/** HWIO → OIHW for convolutions; other values are returned as they are. */
export function fromEngine({ role, shape }: Pick<Parameter, 'role' | 'shape'>, data: Float32Array): Float32Array {
  if (role !== 'ConvWeight') return data;
  const [outputs, inputs, height, width] = shape as readonly [number, number, number, number];
  const window = height * width;
  const moved = new Float32Array(data.length);
  let at = 0;
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      for (let p = 0; p < window; p++) moved[at++] = data[(p * inputs + i) * outputs + o]!;
    }
  }
  return moved;
}
