/** A number as status shows it: a decimal string of at most 6 significant digits, without an exponent. */
export function decimal(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const rounded = Number(value.toPrecision(6));
  const plain = rounded.toString();
  return plain.includes('e') ? rounded.toFixed(20).replace(/\.?0+$/, '') : plain;
}
