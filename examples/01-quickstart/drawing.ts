/** Pictures in a terminal: two pixels a character, the upper and the lower half of a block in 24 greys. Pure. */

/** Greys of the 256-colour palette: 232 (dark) to 255. */
const grey = (value: number) => 232 + Math.round((value / 255) * 23);

/**
 * @param pixels grey values, [side, side]
 * @returns side / 2 lines of `side` characters
 */
export function drawInColour(pixels: Uint8Array, side: number): string[] {
  return Array.from({ length: side / 2 }, (_, row) => {
    const upper = pixels.subarray(row * 2 * side, (row * 2 + 1) * side);
    const lower = pixels.subarray((row * 2 + 1) * side, (row * 2 + 2) * side);
    const cells = Array.from(upper, (value, x) => `\x1b[38;5;${grey(value)};48;5;${grey(lower[x]!)}m▀`);
    return `${cells.join('')}\x1b[0m`;
  });
}

/** The same for what has no colours: a character's darkness is the mean of its two pixels. */
export function drawInText(pixels: Uint8Array, side: number): string[] {
  const shades = ' ░▒▓█';
  return Array.from({ length: side / 2 }, (_, row) =>
    Array.from({ length: side }, (_, x) => {
      const mean = (pixels[row * 2 * side + x]! + pixels[(row * 2 + 1) * side + x]!) / 2;
      return shades[Math.min(shades.length - 1, Math.floor((mean / 256) * shades.length))];
    }).join(''),
  );
}

/** Drawings next to each other, each with a caption below, cut to the drawing's width. */
export function sideBySide(drawings: readonly { lines: string[]; caption: string }[], side: number): string[] {
  const height = Math.max(...drawings.map(({ lines }) => lines.length));
  const rows = Array.from({ length: height }, (_, row) => drawings.map(({ lines }) => lines[row]).join('  '));
  return [
    ...rows,
    drawings
      .map(({ caption }) => caption.slice(0, side).padEnd(side))
      .join('  ')
      .trimEnd(),
  ];
}
