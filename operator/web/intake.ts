/** Takes progress from workers. Nobody can report for another pod: the token says which pod it is, and that pod must be one we watch. */
import express, { type ErrorRequestHandler, type Express } from 'express';
import { z } from 'zod';
import { Progress } from '../../trainer-image/contract.ts';
import { type PodIdentity, Refusal } from './tokens.ts';

export interface Reporter extends PodIdentity {
  labels: Record<string, string>;
}

export interface IntakeOptions {
  verify: (authorization: string | undefined) => Promise<PodIdentity>;
  /** The pod as it is watched; undefined if it is not. */
  findPod: (namespace: string, name: string) => { uid: string; labels: Record<string, string> } | undefined;
  onProgress: (reporter: Reporter, progress: Progress) => void;
}

const BODY_LIMIT = '64kb';
/** What the body's parser refuses, by the status it gives. */
const REASONS: Record<number, string> = { 400: 'BadBody', 413: 'BodyTooLarge', 415: 'BadBody' };

/** `POST /v1/progress` → 204, or `{reason, message}` with 400, 401, 403, 404, 413 or 503. */
export function intake({ verify, findPod, onProgress }: IntakeOptions): Express {
  const app = express();
  app.disable('x-powered-by');
  app.post('/v1/progress', async (request, response, next) => {
    // The token comes first: nothing is parsed for a stranger.
    const identity = await verify(request.headers.authorization);
    const pod = findPod(identity.namespace, identity.podName);
    const name = `${identity.namespace}/${identity.podName}`;
    if (!pod) throw new Refusal(404, 'UnknownPod', `pod ${name} is not watched`);
    if (pod.uid !== identity.podUid) {
      throw new Refusal(403, 'OtherPod', `the token is of an earlier pod ${name} (uid ${identity.podUid})`);
    }
    response.locals.reporter = { ...identity, labels: pod.labels };
    next();
  });
  app.post('/v1/progress', express.json({ limit: BODY_LIMIT }), (request, response) => {
    const progress = Progress.safeParse(request.body);
    if (!progress.success) throw new Refusal(400, 'BadProgress', z.prettifyError(progress.error));
    onProgress(response.locals.reporter, progress.data);
    response.status(204).end();
  });
  app.use((_request, _response) => {
    throw new Refusal(404, 'NoSuchPath', 'the intake takes POST /v1/progress');
  });
  const answer: ErrorRequestHandler = (error, _request, response, _next) => {
    const status = error instanceof Refusal ? error.status : (error.status ?? 500);
    const reason = error instanceof Refusal ? error.reason : REASONS[status] || 'InternalError';
    const message = status < 500 || error instanceof Refusal ? error.message : 'the report could not be taken';
    response.status(status).json({ reason, message });
  };
  app.use(answer);
  return app;
}
