/** Requests to the operator's intake, with the pod's token. */
import { readFile } from 'node:fs/promises';
import { request as requestHTTP } from 'node:http';
import { request as requestHTTPS } from 'node:https';
import { text } from 'node:stream/consumers';
import { ENV } from './contract.ts';

export interface Answer {
  status: number;
  body: string;
}

/**
 * Posts JSON to a path such as `/v1/progress` below the intake that `env` names (see contract.ts's ENV).
 * @throws Error if the intake cannot be reached or does not answer before `signal` aborts
 */
export async function postToIntake(
  env: NodeJS.ProcessEnv,
  path: string,
  message: unknown,
  signal: AbortSignal,
): Promise<Answer> {
  const url = new URL(`${env[ENV.INTAKE]!.replace(/\/$/, '')}${path}`);
  // Both files are read each time: tokens and certificates rotate.
  const tokenFile = env[ENV.INTAKE_TOKEN_FILE];
  const caFile = env[ENV.INTAKE_CA_FILE];
  const token = tokenFile ? (await readFile(tokenFile, 'utf8')).trim() : undefined;
  const ca = caFile ? await readFile(caFile) : undefined;
  const body = JSON.stringify(message);
  const headers: Record<string, string | number> = {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  };
  if (token) headers.authorization = `Bearer ${token}`;
  return new Promise<Answer>((resolve, reject) => {
    const options = { method: 'POST', headers, signal };
    const request = url.protocol === 'https:' ? requestHTTPS(url, { ...options, ca }) : requestHTTP(url, options);
    request.on('error', reject);
    request.on('response', (response) => {
      text(response).then((answer) => resolve({ status: response.statusCode!, body: answer }), reject);
    });
    request.end(body);
  });
}
