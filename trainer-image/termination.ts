/** The last word of a process: its result or failure, within the bytes that Kubernetes keeps of it. */
import { type Failure, type Result, TERMINATION_MESSAGE_BYTES, TerminationMessage } from './contract.ts';

/** Characters of a failure's message, by contract. */
const MESSAGE_CHARACTERS = 1024;
/** Characters kept of a path in a list of examples. */
const PATH_CHARACTERS = 120;

/** The termination message as JSON of at most `limit` bytes: lists lose their end first, then words. */
export function encodeTermination(
  { result, failure }: { result?: Result; failure?: Failure },
  limit = TERMINATION_MESSAGE_BYTES,
): string {
  const message: TerminationMessage = {};
  if (result) message.result = result;
  if (failure) message.failure = { ...failure, message: shorten(failure.message, MESSAGE_CHARACTERS) };
  TerminationMessage.parse(message);
  let text = JSON.stringify(message);
  for (const cut of cuts(message)) {
    if (Buffer.byteLength(text) <= limit) break;
    text = cut(limit);
  }
  return text;
}

/** Ways to make the message shorter, mildest first; each gives the text. */
function* cuts(message: TerminationMessage): Generator<(limit: number) => string> {
  const { result, failure } = message;
  if (result?.kind === 'prepare') {
    const { quarantined, classes } = result;
    quarantined.first = quarantined.first.map((file) => ({ ...file, path: shorten(file.path, PATH_CHARACTERS) }));
    yield () => JSON.stringify(message);
    yield (limit) => longest(classes.length, limit, (n) => withResult({ ...result, classes: classes.slice(0, n) }));
    const { first } = quarantined;
    const withFiles = (n: number) =>
      withResult({ ...result, classes: [], quarantined: { ...quarantined, first: first.slice(0, n) } });
    yield (limit) => longest(first.length, limit, withFiles);
  }
  // Of a failure that came with a result, the words give way, for the numbers are nowhere else.
  if (failure) {
    yield (limit) =>
      longest(failure.message.length, limit, (n) =>
        JSON.stringify({ ...message, failure: { ...failure, message: shorten(failure.message, n) } }),
      );
  }

  function withResult(shorter: Result): string {
    return JSON.stringify({ ...message, result: shorter });
  }
}

/** The text of the largest `n` in [0, most] that fits; that of 0 if none does. */
function longest(most: number, limit: number, textOf: (n: number) => string): string {
  let low = 0;
  let high = most;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (Buffer.byteLength(textOf(middle)) <= limit) low = middle;
    else high = middle - 1;
  }
  return textOf(low);
}

function shorten(text: string, characters: number): string {
  if (text.length <= characters) return text;
  // Half of a surrogate pair would be no character.
  return `${text.slice(0, Math.max(0, characters - 1)).replace(/[\ud800-\udbff]$/, '')}…`.slice(0, characters);
}
