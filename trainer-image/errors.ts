/** The errors a command throws on purpose: each carries the reason that becomes a condition's, and the process's exit code. */
import type { Result } from './contract.ts';
import { EXIT } from './contract.ts';

interface Details {
  cause?: unknown;
  /** What was found out before the task failed, to be kept: a failed verification has its numbers. */
  result?: Result;
}

/** `reason` is CamelCase; `message` says what is wrong, where, and what to do. */
export class TrainerError extends Error {
  readonly reason: string;
  readonly exitCode: number;
  readonly result: Result | undefined;

  /** `exitCode` is FAILURE unless said otherwise: the Job retries. */
  constructor(reason: string, message: string, details: Details & { exitCode?: number } = {}) {
    super(message, { cause: details.cause });
    this.name = reason;
    this.reason = reason;
    this.exitCode = details.exitCode ?? EXIT.FAILURE;
    this.result = details.result;
  }
}

/** The user must change the spec or the data; a retry cannot help. */
export class UserError extends TrainerError {
  constructor(reason: string, message: string, details: Details = {}) {
    super(reason, message, { ...details, exitCode: EXIT.USER_ERROR });
  }
}
