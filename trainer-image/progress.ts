/**
 * Progress: a bar or lines on standard error, and reports to the intake. A report is best effort: an intake that is slow or
 * gone never holds up the work, and only the latest one counts.
 */
import { ENV, type Progress } from './contract.ts';
import { postToIntake } from './intake.ts';

export interface Reporter {
  /** Never blocks and never throws; may be called at any rate. */
  report(progress: Progress): void;
  /** A line for people on standard error. */
  note(line: string): void;
  /** Sends the latest report, if it is still unsent, and gives up soon. */
  flush(): Promise<void>;
}

/** Shortest time between two requests to the intake. */
const INTERVAL_MILLISECONDS = 2000;
/** A request that takes longer is dropped. */
const TIMEOUT_MILLISECONDS = 5000;
/** What the end of the process waits for the last report. */
const FLUSH_MILLISECONDS = 2000;
/** Shortest time between two lines where there is no terminal, and between two drawings of the bar where there is one. */
const LINE_MILLISECONDS = 10_000;
const BAR_MILLISECONDS = 100;

/** Reports to the intake that `env` names (see contract.ts's ENV), if it names one, and to `terminal`. */
export function createReporter(
  env: NodeJS.ProcessEnv,
  terminal: { write(text: string): unknown; isTTY?: boolean; columns?: number } = process.stderr,
): Reporter {
  const intake = createIntake(env);
  let drawn = false;
  let lastDrawn = Number.NEGATIVE_INFINITY;
  let last: Progress | undefined;

  const clear = () => {
    if (drawn) terminal.write('\r\x1b[2K');
    drawn = false;
  };

  const draw = (progress: Progress) => {
    const now = performance.now();
    const turned = progress.stage !== last?.stage || progress.epoch !== last?.epoch || progress.percent === 100;
    const repeated = progress.percent === last?.percent && progress.step === last?.step && !turned;
    last = progress;
    if (repeated || (!turned && now - lastDrawn < (terminal.isTTY ? BAR_MILLISECONDS : LINE_MILLISECONDS))) return;
    lastDrawn = now;
    if (terminal.isTTY) {
      const words = describe(progress);
      clear();
      terminal.write(`${bar(progress.percent)} ${words}`.slice(0, Math.max(20, (terminal.columns ?? 80) - 1)));
      drawn = true;
    } else {
      terminal.write(`${progress.percent.toFixed(0).padStart(3)} %  ${describe(progress)}\n`);
    }
  };

  return {
    report(progress) {
      draw(progress);
      intake?.offer(progress);
    },
    note(line) {
      clear();
      terminal.write(`${line}\n`);
    },
    async flush() {
      if (drawn) terminal.write('\n');
      drawn = false;
      await intake?.flush();
    },
  };
}

/** `training  epoch 3/30  step 120  loss 0.4123  1,234 samples/s  2 min left` */
function describe(progress: Progress): string {
  const words = [progress.stage];
  if (progress.epoch !== undefined) {
    words.push(`epoch ${progress.epoch}${progress.epochs === undefined ? '' : `/${progress.epochs}`}`);
  }
  if (progress.step !== undefined) words.push(`step ${progress.step}`);
  for (const { name, value } of progress.metrics ?? []) words.push(`${name} ${Number(value.toPrecision(4))}`);
  if (progress.samplesPerSecond !== undefined) {
    words.push(`${Math.round(progress.samplesPerSecond).toLocaleString('en')} samples/s`);
  }
  if (progress.etaSeconds !== undefined) {
    const seconds = Math.round(progress.etaSeconds);
    words.push(seconds < 90 ? `${seconds} s left` : `${Math.round(seconds / 60)} min left`);
  }
  return words.join('  ');
}

function bar(percent: number): string {
  const width = 24;
  const full = Math.round((Math.min(100, Math.max(0, percent)) / 100) * width);
  return `${'█'.repeat(full)}${'░'.repeat(width - full)} ${percent.toFixed(0).padStart(3)} %`;
}

interface Intake {
  offer(progress: Progress): void;
  flush(): Promise<void>;
}

/** One request at a time, at most one each interval; between them only the latest report is kept. */
function createIntake(env: NodeJS.ProcessEnv): Intake | undefined {
  if (!env[ENV.INTAKE]) return undefined;
  let pending: Progress | undefined;
  let inFlight: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let lastSent = Number.NEGATIVE_INFINITY;

  const send = (timeout: number) => {
    timer = undefined;
    const progress = pending;
    if (!progress || inFlight) return;
    pending = undefined;
    lastSent = performance.now();
    // A report that fails is not sent again: the next one says more.
    inFlight = postToIntake(env, '/v1/progress', progress, AbortSignal.timeout(timeout))
      .then(
        () => {},
        () => {},
      )
      .finally(() => {
        inFlight = undefined;
        schedule();
      });
  };

  const schedule = () => {
    if (!pending || inFlight || timer) return;
    timer = setTimeout(send, Math.max(0, lastSent + INTERVAL_MILLISECONDS - performance.now()), TIMEOUT_MILLISECONDS);
    timer.unref();
  };

  return {
    offer(progress) {
      pending = progress;
      schedule();
    },
    async flush() {
      clearTimeout(timer);
      timer = undefined;
      const end = performance.now() + FLUSH_MILLISECONDS;
      const expired = new Promise<void>((resolve) => setTimeout(resolve, FLUSH_MILLISECONDS).unref());
      await Promise.race([inFlight, expired]);
      clearTimeout(timer);
      timer = undefined;
      if (pending && !inFlight) {
        send(Math.max(1, Math.ceil(end - performance.now())));
        await Promise.race([inFlight, expired]);
      }
    },
  };
}
