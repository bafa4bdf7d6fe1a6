/** From decoded pictures to the tensor `image` that an exported model takes. Verification and server both use this. */
import type { Preprocessing } from '../contract.ts';

/** Elements of one picture: C · H · W. */
export function elementsOf({ colour, height, width }: Pick<Preprocessing, 'colour' | 'height' | 'width'>): number {
  return (colour === 'Grey' ? 1 : 3) * height * width;
}

/**
 * Pixels as decoded, uint8 [N, H, W, C], in the layout of exported models, uint8 [N, C, H, W].
 * @param into Where to write; [N, C, H, W].
 */
export function toChannelsFirst(pixels: Uint8Array, preprocessing: Preprocessing, into: Uint8Array): void {
  const channels = preprocessing.colour === 'Grey' ? 1 : 3;
  if (channels === 1) {
    into.set(pixels);
    return;
  }
  const area = preprocessing.height * preprocessing.width;
  for (let start = 0; start < pixels.length; start += channels * area) {
    for (let channel = 0; channel < channels; channel++) {
      const plane = start + channel * area;
      for (let i = 0, from = start + channel; i < area; i++, from += channels) into[plane + i] = pixels[from]!;
    }
  }
}

/** (x / 255 − mean) / std per channel, [N, C, H, W]: what a model exported without its normalization takes. */
export function normalize(pixels: Uint8Array, preprocessing: Preprocessing): Float32Array {
  const area = preprocessing.height * preprocessing.width;
  const channels = preprocessing.colour === 'Grey' ? 1 : 3;
  const normalized = new Float32Array(pixels.length);
  for (let plane = 0, start = 0; start < pixels.length; plane++, start += area) {
    const mean = preprocessing.mean[plane % channels]!;
    const std = preprocessing.std[plane % channels]!;
    for (let i = start; i < start + area; i++) normalized[i] = (pixels[i]! / 255 - mean) / std;
  }
  return normalized;
}
