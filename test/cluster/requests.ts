/** Requests to the cluster's components over TLS, with a certificate to show or without one. */
import { request as httpsRequest } from 'node:https';

/** How to reach a server. `ca` is the authority that its certificate is held against; all PEM. */
export interface Access {
  server: string;
  ca: string;
  certificate?: string;
  privateKey?: string;
}

export interface Answer {
  status: number;
  body: string;
}

/** Answers are small here; this is to notice one that is not. */
const MAX_BODY_BYTES = 16 * 2 ** 20;

/**
 * One request on a connection of its own.
 *
 * @throws Error of the connection, as ECONNREFUSED or the reason why a certificate was not accepted
 */
export function request(
  access: Access,
  path: string,
  { method = 'GET', body, headers, timeoutMs = 5000 }: RequestOptions = {},
): Promise<Answer> {
  const payload = body === undefined ? undefined : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const outgoing = httpsRequest(
      new URL(path, access.server),
      {
        method,
        ca: access.ca,
        cert: access.certificate,
        key: access.privateKey,
        agent: false,
        signal: AbortSignal.timeout(timeoutMs),
        headers: { accept: 'application/json', ...(payload && { 'content-type': 'application/json' }), ...headers },
      },
      (incoming) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        incoming.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > MAX_BODY_BYTES) incoming.destroy(new Error(`${path} answered more than ${MAX_BODY_BYTES} bytes`));
          else chunks.push(chunk);
        });
        incoming.on('error', reject);
        incoming.on('end', () => resolve({ status: incoming.statusCode!, body: Buffer.concat(chunks).toString() }));
      },
    );
    outgoing.on('error', reject);
    outgoing.end(payload);
  });
}

export interface RequestOptions {
  method?: string;
  /** Sent as JSON. */
  body?: unknown;
  headers?: Record<string, string>;
  timeoutMs?: number;
}
