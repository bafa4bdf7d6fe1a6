/**
 * Mean and standard deviation per channel, each pixel weighing the same. Sums of 8-bit values and of their squares are integers and
 * kept as such, so the result is exact and does not depend on the order.
 */

/** Sums over one picture, per channel. Below 2^53 for any picture of up to 10^9 pixels. */
export interface PixelSums {
  pixels: number;
  sums: number[];
  squares: number[];
}

/** Of interleaved uint8 pixels, `[height, width, channels]`. */
export function sumPixels(data: Uint8Array, channels: number): PixelSums {
  const sums = new Array<number>(channels).fill(0);
  const squares = new Array<number>(channels).fill(0);
  for (let channel = 0; channel < channels; channel++) {
    let sum = 0;
    let square = 0;
    for (let i = channel; i < data.length; i += channels) {
      const value = data[i]!;
      sum += value;
      square += value * value;
    }
    sums[channel] = sum;
    squares[channel] = square;
  }
  return { pixels: data.length / channels, sums, squares };
}

/** Of values in [0, 1]. The deviation is the population's. */
export function meanAndStd(parts: Iterable<PixelSums>, channels: number): { mean: number[]; std: number[] } {
  let pixels = 0n;
  const sums = new Array<bigint>(channels).fill(0n);
  const squares = new Array<bigint>(channels).fill(0n);
  for (const part of parts) {
    pixels += BigInt(part.pixels);
    for (let channel = 0; channel < channels; channel++) {
      sums[channel]! += BigInt(part.sums[channel]!);
      squares[channel]! += BigInt(part.squares[channel]!);
    }
  }
  const count = Number(pixels);
  return {
    mean: sums.map((sum) => Number(sum) / count / 255),
    // n Σx² − (Σx)², exact before the first rounding: the two terms may be close.
    std: sums.map((sum, channel) => Math.sqrt(Number(pixels * squares[channel]! - sum * sum)) / count / 255),
  };
}
