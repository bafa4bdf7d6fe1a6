/** A tar by HTTP(S): resumed where the connection broke, retried with growing pauses, and held against its digest. */
import { createHash, type Hash, randomUUID } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TrainerError, UserError } from '../errors.ts';
import type { SourceContext } from './source.ts';

export interface DownloadLimits {
  maxBytes: number;
  /** Attempts in a row that bring nothing before it is given up. */
  attempts: number;
  /** Pause after the first of them; doubled each time, up to 30 s. */
  backoffMilliseconds: number;
  /** Without a byte for so long, a connection counts as broken. */
  stallMilliseconds: number;
}

const LIMITS: DownloadLimits = {
  maxBytes: 1024 ** 4,
  attempts: 6,
  backoffMilliseconds: 1000,
  stallMilliseconds: 60_000,
};

/** Answers that may be other ones soon: request timeout, too early, too many requests. */
const TEMPORARY = new Set([408, 425, 429]);

/** What has arrived so far. */
interface Partial {
  size: number;
  hash: Hash;
  /** Strong validator of what is being sent, without which the pieces could be of different files. */
  etag: string | undefined;
  /** Length of the whole, if the server says it. */
  total: number | undefined;
}

/**
 * Downloads into `scratch`. Redirects are followed, as many as fetch allows (20).
 * Throws UserError DigestMismatch, DownloadRefused (4xx) or ArchiveTooLarge; TrainerError DownloadFailed or ScratchFull.
 */
export async function download(
  url: string,
  digest: string,
  { scratch, signal, onProgress }: SourceContext,
  limits: DownloadLimits = LIMITS,
): Promise<{ path: string; remove(): Promise<void> }> {
  const path = join(scratch, `download-${randomUUID()}`);
  const remove = () => rm(path, { force: true });
  const file = await open(path, 'wx');
  const partial: Partial = { size: 0, hash: createHash('sha256'), etag: undefined, total: undefined };

  const append = async (chunk: Uint8Array) => {
    if (partial.size + chunk.length > limits.maxBytes) {
      throw new UserError('ArchiveTooLarge', `${url} has more than the ${limits.maxBytes} bytes that are allowed`);
    }
    for (let at = 0; at < chunk.length; ) {
      at += (await file.write(chunk, at, chunk.length - at, partial.size + at)).bytesWritten;
    }
    partial.hash.update(chunk);
    partial.size += chunk.length;
    onProgress('downloading', partial.total ? Math.min(100, (100 * partial.size) / partial.total) : 0);
  };
  const restart = async () => {
    await file.truncate(0);
    Object.assign(partial, { size: 0, hash: createHash('sha256') });
  };

  try {
    for (let failures = 0, done = false; !done; ) {
      const before = partial.size;
      try {
        await fetchRest(url, partial, { append, restart, signal, stallMilliseconds: limits.stallMilliseconds });
        done = true;
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof TrainerError) throw error;
        if ((error as NodeJS.ErrnoException).code === 'ENOSPC') {
          throw new TrainerError(
            'ScratchFull',
            `no space left in ${scratch} to download ${url}: enlarge the scratch volume`,
            {
              cause: error,
            },
          );
        }
        failures = partial.size > before ? 1 : failures + 1;
        if (failures >= limits.attempts) {
          throw new TrainerError('DownloadFailed', `${url} could not be downloaded: ${causeOf(error)}`, {
            cause: error,
          });
        }
        await sleep(Math.min(30_000, limits.backoffMilliseconds * 2 ** (failures - 1)), undefined, { signal });
      }
    }
    const found = `sha256:${partial.hash.digest('hex')}`;
    if (found !== digest) {
      throw new UserError(
        'DigestMismatch',
        `${url} (${partial.size} bytes) has the digest ${found}, and source.digest says ${digest}: the file has changed, or the digest is another file's`,
      );
    }
    return { path, remove };
  } catch (error) {
    await remove();
    throw error;
  } finally {
    await file.close();
  }
}

/** One request, for what is missing. Throws where it broke; what came before that is kept. */
async function fetchRest(
  url: string,
  partial: Partial,
  {
    append,
    restart,
    signal,
    stallMilliseconds,
  }: {
    append(chunk: Uint8Array): Promise<void>;
    restart(): Promise<void>;
    signal: AbortSignal;
    stallMilliseconds: number;
  },
): Promise<void> {
  const stalled = new AbortController();
  const stall = () => stalled.abort(new Error(`nothing came for ${stallMilliseconds / 1000} s`));
  let timer = setTimeout(stall, stallMilliseconds);
  try {
    const headers: Record<string, string> = { 'accept-encoding': 'identity' };
    if (partial.size > 0 && partial.etag) {
      headers.range = `bytes=${partial.size}-`;
      headers['if-range'] = partial.etag;
    }
    const response = await fetch(url, { headers, signal: AbortSignal.any([signal, stalled.signal]) });
    const { status } = response;
    if (status === 206) {
      const start = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1];
      if (Number(start) !== partial.size) {
        partial.etag = undefined; // the next request asks for the whole
        throw new Error(`asked for bytes from ${partial.size}, the server sent from ${start}`);
      }
    } else if (status === 200) {
      await restart();
      const etag = response.headers.get('etag');
      partial.etag = etag?.startsWith('"') ? etag : undefined;
      partial.total = Number(response.headers.get('content-length')) || undefined;
    } else {
      partial.etag = undefined;
      await response.body?.cancel();
      const words = `HTTP ${status} ${response.statusText}`.trim();
      if (status >= 400 && status < 500 && status !== 416 && !TEMPORARY.has(status)) {
        throw new UserError('DownloadRefused', `${url} was refused: ${words}`);
      }
      throw new Error(words);
    }
    for await (const chunk of response.body ?? []) {
      clearTimeout(timer);
      await append(chunk);
      timer = setTimeout(stall, stallMilliseconds);
    }
    // Without this a connection that ends early would pass for the end of a body whose length was not framed.
    if (partial.total !== undefined && partial.size < partial.total) {
      throw new Error(`the connection ended after ${partial.size} of ${partial.total} bytes`);
    }
  } finally {
    clearTimeout(timer);
  }
}

/** fetch says no more than "fetch failed"; its cause says why. */
function causeOf(error: unknown): string {
  const { message, cause } = error as Error;
  const inner = cause as (Error & { code?: string }) | undefined;
  return inner ? `${message} (${inner.message || inner.code})` : message;
}
