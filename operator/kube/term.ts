/** For how long somebody may write: what a lease gives, as its holder has to see it. */

export class TermOver extends Error {
  constructor(reason: string) {
    super(`no longer the leader: ${reason}`);
    this.name = 'TermOver';
  }
}

/**
 * Ends at its deadline, unless that was moved on before, or earlier when it is ended. Timers may be late (the process was
 * stopped, the event loop is busy), so whoever begins to write asks `check`, which looks at the clock itself.
 */
export class Term {
  readonly #ended = new AbortController();
  readonly #winding = new AbortController();
  #deadline: number;
  #timer: NodeJS.Timeout;

  /** @param deadline in ms of `performance.now()` */
  constructor(deadline: number) {
    this.#deadline = deadline;
    this.#timer = this.#arm();
  }

  /** Aborts with TermOver when the term is over: what is under way has to be broken off. */
  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  /** Aborts when the term is over or about to be: nothing new should begin, what is under way may end well. */
  get windingUp(): AbortSignal {
    return this.#winding.signal;
  }

  /** @throws TermOver when it is over */
  check(): void {
    if (performance.now() >= this.#deadline) this.end(LATE);
    this.#ended.signal.throwIfAborted();
  }

  /** Moves the deadline; does nothing when the term is over. */
  extend(deadline: number): void {
    if (this.#ended.signal.aborted) return;
    this.#deadline = deadline;
    clearTimeout(this.#timer);
    this.#timer = this.#arm();
  }

  /** Asks whoever works in this term to come to an end. */
  windUp(): void {
    this.#winding.abort();
  }

  end(reason: string): void {
    clearTimeout(this.#timer);
    if (!this.#ended.signal.aborted) this.#ended.abort(new TermOver(reason));
    this.#winding.abort();
  }

  #arm(): NodeJS.Timeout {
    return setTimeout(() => this.end(LATE), Math.ceil(this.#deadline - performance.now()));
  }
}

const LATE = 'the lease was not renewed in time';
