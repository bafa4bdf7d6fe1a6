/** Shows the stages: a block that is drawn over on a terminal, elsewhere a line for each change. */
import type { WriteStream } from 'node:tty';
import { duration, type Stage } from './stages.ts';

export interface View {
  show(stages: readonly Stage[]): void;
  /** Leaves what is shown where it is. */
  end(): void;
}

const BAR = 20;
const WORDS = { Waiting: 'waiting', Running: 'running', Ready: 'ready', Failed: 'FAILED' };

/** One line, at most `columns` characters wide. */
export function line({ kind, state, percent, detail }: Stage, seconds: number | undefined, columns: number): string {
  const full = Math.round((percent / 100) * BAR);
  const bar = `${'█'.repeat(full)}${'░'.repeat(BAR - full)}`;
  const word = state === 'Running' && percent > 0 ? `${percent} %` : WORDS[state];
  const time = seconds === undefined ? '' : duration(seconds).padStart(9);
  const text = `  ${kind.padEnd(16)}  ${bar}  ${word.padEnd(7)} ${time.padEnd(9)}  ${detail}`;
  return text.length > columns ? `${text.slice(0, columns - 1)}…` : text;
}

/**
 * @param now seconds
 */
export function viewOn(output: WriteStream | NodeJS.WritableStream, now = () => performance.now() / 1000): View {
  const times = clocks(now);
  return 'isTTY' in output && output.isTTY ? block(output, times) : lines(output, times);
}

/** Seconds that each stage has run, or ran before it was ready; undefined before it starts, and if it never ran here. */
function clocks(now: () => number) {
  const started = new Map<string, number>();
  const ended = new Map<string, number>();
  return ({ kind, state }: Stage): number | undefined => {
    if (state === 'Waiting') started.delete(kind);
    if (state === 'Running' && !started.has(kind)) started.set(kind, now());
    if ((state === 'Ready' || state === 'Failed') && started.has(kind) && !ended.has(kind)) ended.set(kind, now());
    if (state === 'Running') ended.delete(kind);
    const start = started.get(kind);
    return start === undefined ? undefined : (ended.get(kind) ?? now()) - start;
  };
}

function block(output: WriteStream, seconds: ReturnType<typeof clocks>): View {
  let drawn = 0;
  let shown: readonly Stage[] = [];
  const draw = () => {
    const rows = shown.map((stage) => line(stage, seconds(stage), output.columns || 80));
    const back = drawn > 0 ? `\x1b[${drawn}A` : '';
    output.write(back + rows.map((row) => `\r\x1b[2K${row}\n`).join(''));
    drawn = rows.length;
  };
  // For the clocks to go on between two words of the cluster.
  const timer = setInterval(draw, 1000);
  return {
    show(stages) {
      shown = stages;
      draw();
    },
    end: () => clearInterval(timer),
  };
}

/** Percent between two lines about a stage that runs. */
const STEP = 10;

function lines(output: NodeJS.WritableStream, seconds: ReturnType<typeof clocks>): View {
  const last = new Map<string, string>();
  return {
    show(stages) {
      for (const stage of stages) {
        const time = seconds(stage);
        // What it waits for may be told in changing words; how far it is, in steps.
        const mark = `${stage.state} ${Math.floor(stage.percent / STEP)}`;
        if (last.get(stage.kind) === mark) continue;
        last.set(stage.kind, mark);
        output.write(`${line(stage, time, Number.POSITIVE_INFINITY)}\n`);
      }
    },
    end() {},
  };
}
