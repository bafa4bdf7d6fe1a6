/** Logs are JSON lines on standard output; what a line is about (object, reconcile) is bound once, not written into each text. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import { type Logger, pino, stdTimeFunctions } from 'pino';

export type { Logger };

/**
 * The logger of a program.
 *
 * @param options.program name of the program, on every line
 * @param options.level the least that is written: `trace`, `debug`, `info` (default), `warn`, `error`, `silent`
 */
export function createLogger(options: { program: string; level?: string }): Logger {
  return pino({
    level: options.level ?? 'info',
    base: { program: options.program },
    mixin: () => reconciles.getStore() ?? {},
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    // An error is often logged under the name `error`; pino knows only `err` by itself.
    serializers: { error: pino.stdSerializers.err },
    redact: ['headers.authorization', 'token'],
  });
}

interface Reconcile {
  controller: string;
  /** `namespace/name` */
  object: string;
  /** Of this one call. */
  reconcile: string;
}

const reconciles = new AsyncLocalStorage<Reconcile>();

/**
 * Runs one reconcile of one object. Each line that is logged in it, wherever that is, can be found by `reconcile`, and all of the
 * object's by `object`.
 */
export function inReconcile<T>(subject: { controller: string; object: string }, run: () => T): T {
  return reconciles.run({ ...subject, reconcile: randomUUID().slice(0, 8) }, run);
}
