/** What can come back instead of what was asked for. */

/** A `metav1.Status`, as far as we read it. */
export interface Status {
  code?: number;
  reason?: string;
  message?: string;
  details?: {
    retryAfterSeconds?: number;
    causes?: { reason?: string; field?: string; message?: string }[];
  };
}

/** The API server said no. `message` names the request and what the server said. */
export class ApiError extends Error {
  readonly code: number;
  readonly reason: string;
  readonly status: Status;
  /** Seconds the server asks to wait, if it does. */
  readonly retryAfterSeconds: number | undefined;

  constructor(request: string, code: number, status: Status, retryAfterSeconds?: number) {
    super(`${request}: ${code} ${status.reason ?? ''}: ${status.message ?? 'no message'}`);
    this.name = 'ApiError';
    this.code = code;
    this.reason = status.reason ?? '';
    this.status = status;
    this.retryAfterSeconds = status.details?.retryAfterSeconds ?? retryAfterSeconds;
  }
}

/**
 * No answer, or half of one: refused, reset, timed out, cut. Whether the server did what was asked is not known. `message`
 * names the request; `cause` is the connection's own error.
 */
export class ConnectionError extends Error {
  constructor(request: string, cause: unknown) {
    super(`${request}: ${cause instanceof Error ? cause.message || cause.name : cause}`, { cause });
    this.name = 'ConnectionError';
  }
}

const is = (code: number, reason?: string) => (error: unknown) =>
  error instanceof ApiError && error.code === code && (reason === undefined || error.reason === reason);

export const isForbidden = is(403);
export const isNotFound = is(404);
export const isAlreadyExists = is(409, 'AlreadyExists');
/** Somebody else wrote the object since, or a precondition does not hold. */
export const isConflict = is(409, 'Conflict');
/** The resourceVersion is too old to watch from, or the continue token to list with. */
export const isGone = is(410);
export const isInvalid = is(422);

/** Worth the same request again: the server is overloaded, starting or away. */
export function isTransient(error: unknown): boolean {
  if (error instanceof ApiError) return error.code === 429 || error.code >= 500;
  return error instanceof ConnectionError;
}
