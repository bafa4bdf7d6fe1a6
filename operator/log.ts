/** Logs are JSON lines on standard output; what a line is about (object, reconcile) is bound once, not written into each text. */
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
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    // An error is often logged under the name `error`; pino knows only `err` by itself.
    serializers: { error: pino.stdSerializers.err },
    redact: ['headers.authorization', 'token'],
  });
}

/** A logger of one reconcile of one object: all of its lines can be found by `reconcile`, all of the object's by `object`. */
export function forReconcile(
  log: Logger,
  subject: { controller: string; namespace: string; name: string; generation?: number },
): Logger {
  const { controller, namespace, name, generation } = subject;
  return log.child({ controller, object: `${namespace}/${name}`, generation, reconcile: randomUUID().slice(0, 8) });
}
