/** Progress of long steps: one line that is drawn over on a terminal, a line now and then elsewhere. */
import type { WriteStream } from 'node:tty';

export interface Progress {
  /** A finished or notable step, as a line of its own. */
  say(line: string): void;
  /** How far a running step is; `fraction` (0 to 1) is absent where it can't be known. */
  update(step: string, fraction?: number): void;
}

/** Seconds between two lines where lines can't be drawn over. */
const QUIET_SECONDS = 20;
const BAR_WIDTH = 30;

export function progressOn(output: WriteStream | NodeJS.WritableStream): Progress {
  const columns = () => ('columns' in output && output.columns) || 80;
  if (!('isTTY' in output) || !output.isTTY) return lines(output);
  let drawn = false;
  const clear = () => {
    if (drawn) output.write('\r\x1b[K');
    drawn = false;
  };
  return {
    say(line) {
      clear();
      output.write(`${line}\n`);
    },
    update(step, fraction) {
      const bar =
        fraction === undefined ? '' : `${'█'.repeat(Math.round(fraction * BAR_WIDTH)).padEnd(BAR_WIDTH, '░')} `;
      output.write(`\r\x1b[K${`${bar}${step}`.slice(0, columns() - 1)}`);
      drawn = true;
    },
  };
}

function lines(output: NodeJS.WritableStream): Progress {
  let last = Number.NEGATIVE_INFINITY;
  return {
    say(line) {
      output.write(`${line}\n`);
    },
    update(step, fraction) {
      const now = performance.now();
      if (now - last < QUIET_SECONDS * 1000) return;
      last = now;
      output.write(`${step}${fraction === undefined ? '' : ` (${Math.round(fraction * 100)} %)`}\n`);
    },
  };
}
