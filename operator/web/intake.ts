/**
 * Takes progress from workers, and gives them their ring. Nobody can speak for another pod: the token says which pod it is, and
 * that pod must be one we watch. Only the leader takes progress and lets workers join; another passes both on to it.
 */
import express, { type ErrorRequestHandler, type Express, type Response } from 'express';
import { z } from 'zod';
import { Progress, RingRequest } from '../../trainer-image/contract.ts';
import { type RingDesk, withSecret } from './ring.ts';
import { type PodIdentity, Refusal } from './tokens.ts';

export interface Reporter extends PodIdentity {
  labels: Record<string, string>;
}

/** A request that the leader has to answer: checked here, and to be checked again there. */
export interface Forwarded {
  path: '/v1/progress' | '/v1/ring';
  /** The header with the worker's token. */
  authorization: string;
  /** JSON. */
  body: string;
  /** Aborts when the worker has gone. */
  signal: AbortSignal;
}

export interface IntakeOptions {
  verify: (authorization: string | undefined) => Promise<PodIdentity>;
  /** The pod as it is watched; undefined if it is not. */
  findPod: (namespace: string, name: string) => { uid: string; labels: Record<string, string> } | undefined;
  onProgress: (reporter: Reporter, progress: Progress) => void;
  rings: RingDesk;
  /** See `withSecret`. */
  ringKey: Uint8Array;
  /** Whether this process leads. Default: always. */
  leading?: () => boolean;
  /** The leader's answer. Throws if there is none; absent: nobody else can be asked. */
  forward?: (request: Forwarded) => Promise<{ status: number; body: string }>;
}

/** On what was passed on once, and is not again: of two who each take the other for the leader, neither is. */
export const FORWARDED_HEADER = 'fovea-forwarded';

const BODY_LIMIT = '64kb';
/** What the body's parser refuses, by the status it gives. */
const REASONS: Record<number, string> = { 400: 'BadBody', 413: 'BodyTooLarge', 415: 'BadBody' };
const PATHS = ['/v1/progress', '/v1/ring'];

/**
 * `POST /v1/progress` → 204; `POST /v1/ring` → 200 with a Ring, or 204: ask again. Both refuse with `{reason, message}` and 400,
 * 401, 403, 404, 413 or 503.
 */
export function intake(options: IntakeOptions): Express {
  const { verify, findPod, onProgress, rings, ringKey, leading = () => true } = options;
  const app = express();
  app.disable('x-powered-by');
  app.post(PATHS, async (request, response, next) => {
    // The token comes first: nothing is parsed for a stranger.
    const identity = await verify(request.headers.authorization);
    const pod = findPod(identity.namespace, identity.podName);
    const name = `${identity.namespace}/${identity.podName}`;
    if (!pod) throw new Refusal(404, 'UnknownPod', `pod ${name} is not watched`);
    if (pod.uid !== identity.podUid) {
      throw new Refusal(403, 'OtherPod', `the token is of an earlier pod ${name} (uid ${identity.podUid})`);
    }
    response.locals.reporter = { ...identity, labels: pod.labels };
    response.locals.authorization = request.headers.authorization;
    next();
  });
  app.post(PATHS, express.json({ limit: BODY_LIMIT }));

  /** Passes a request on to the leader, and its answer back. */
  async function pass(path: Forwarded['path'], message: unknown, response: Response): Promise<void> {
    let answer: { status: number; body: string };
    try {
      if (response.req.get(FORWARDED_HEADER)) throw new Error('it was just now taken for the leader');
      if (!options.forward) throw new Error('there is no other');
      const { authorization } = response.locals;
      answer = await options.forward({ path, authorization, body: JSON.stringify(message), signal: gone(response) });
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new Refusal(503, 'NoLeader', `this operator does not lead, and the one that does cannot be asked: ${why}`);
    }
    response.status(answer.status).type('json').send(answer.body);
  }

  app.post('/v1/progress', async (request, response) => {
    const progress = Progress.safeParse(request.body);
    if (!progress.success) throw new Refusal(400, 'BadProgress', z.prettifyError(progress.error));
    if (!leading()) return pass('/v1/progress', progress.data, response);
    onProgress(response.locals.reporter, progress.data);
    response.status(204).end();
  });
  app.post('/v1/ring', async (request, response) => {
    const asked = RingRequest.safeParse(request.body);
    if (!asked.success) throw new Refusal(400, 'BadRingRequest', z.prettifyError(asked.error));
    const { after } = asked.data;
    const pod: PodIdentity = response.locals.reporter;
    // A ring that the status tells is the same wherever it is read.
    const present = rings.present(pod, after);
    if (!present && !leading()) return pass('/v1/ring', asked.data, response);
    const found = present ?? (await rings.join(pod, after, gone(response)));
    if (found) response.json(withSecret(found, ringKey));
    else response.status(204).end();
  });
  app.use((_request, _response) => {
    throw new Refusal(404, 'NoSuchPath', 'the intake takes POST /v1/progress and POST /v1/ring');
  });
  const answer: ErrorRequestHandler = (error, _request, response, _next) => {
    const status = error instanceof Refusal ? error.status : (error.status ?? 500);
    const reason = error instanceof Refusal ? error.reason : REASONS[status] || 'InternalError';
    const message = status < 500 || error instanceof Refusal ? error.message : 'the request could not be taken';
    response.status(status).json({ reason, message });
  };
  app.use(answer);
  return app;
}

/** Aborts when the connection is closed, with or without an answer. */
function gone(response: Response): AbortSignal {
  const controller = new AbortController();
  if (response.closed) controller.abort();
  else response.once('close', () => controller.abort());
  return controller.signal;
}
