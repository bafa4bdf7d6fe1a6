/** The server's routes: Open Inference Protocol v2, `:classify`, health and metrics. */
import express, {
  type ErrorRequestHandler,
  type Express,
  type Request,
  type RequestHandler,
  type Response,
} from 'express';
import { DEFAULT_LIMITS, decodePicture, PictureError } from '../data/preprocess.ts';
import { normalize, toChannelsFirst } from '../export/input.ts';
import { type Batcher, InferenceError, OverloadError, type Pixels } from './batcher.ts';
import type { Metrics } from './metrics.ts';
import type { ServedModel } from './model.ts';
import { parseInferRequest, RequestError, renderInferResponse, VERSION } from './protocol.ts';

/** Labels in the answer of `:classify`, the likeliest first. */
const TOP = 5;

/** Bodies of requests in progress are held in memory: of so many of the largest size, together. */
const BODIES_IN_MEMORY = 16;

/** Most inference requests in progress, in whatever state: each may also hold a decoded picture. */
const REQUESTS_IN_PROGRESS = 1024;

/** Seconds after which an overloaded or loading server suggests to try again (it, or another replica). */
const RETRY_AFTER_SECONDS = 1;

/** Stages of a server's life. Requests are taken in `Ready` and `Leaving`; only `Ready` asks for them. */
export type Stage = 'Loading' | 'Ready' | 'Leaving';

export interface Service {
  /** Model name in the protocol. */
  name: string;
  /** Bytes of the largest body. */
  maxBodyBytes: number;
  metrics: Metrics;
  stage: Stage;
  /** Set once the stage is `Ready`. */
  serving: { model: ServedModel; batcher: Batcher; maxBatchSize: number } | undefined;
  /** Inference requests in progress. */
  inFlight: number;
  /** When the latest inference request came (performance.now()). */
  lastArrival: number;
}

export function createApp(service: Service): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.enable('case sensitive routing');

  app.use((_request, response, next) => {
    // Clients that keep connections open move on to another replica.
    if (service.stage === 'Leaving') response.setHeader('connection', 'close');
    next();
  });

  app.get('/v2/health/live', (_request, response) => void response.json({ live: true }));
  app.get('/v2/health/ready', (_request, response) => {
    const ready = service.stage === 'Ready';
    response.status(ready ? 200 : 503).json({ ready });
  });
  app.get('/v2', (_request, response) => {
    response.json({ name: 'fovea', version: VERSION, extensions: ['binary_tensor_data'] });
  });
  app.get('/metrics', async (_request, response) => {
    response.type(service.metrics.registry.contentType).send(await service.metrics.registry.metrics());
  });

  const isOurs = checkModel(service);
  const model = '/v2/models/:model{/versions/:version}';
  app.get(`${model}/ready`, isOurs, (_request, response) => {
    const ready = service.stage === 'Ready';
    response.status(ready ? 200 : 503).json({ name: service.name, ready });
  });
  app.get(model, isOurs, (_request, response) => {
    const { input, output } = servingOf(service).model;
    response.json({
      name: service.name,
      versions: [VERSION],
      platform: 'onnxruntime_onnx',
      inputs: [{ name: input.name, datatype: input.datatype, shape: [input.openBatch ? -1 : 1, ...input.shape] }],
      outputs: [{ name: output.name, datatype: 'FP32', shape: [input.openBatch ? -1 : 1, output.width] }],
    });
  });

  const takesInference = [isOurs, admit(service), readBody(service)];
  app.post(`${model}/infer`, ...takesInference, (request, response) =>
    answer(service, response, infer(service, request)),
  );
  app.post('/v1/models/:model\\:classify', isOurs, checkPictureType, ...takesInference, (request, response) =>
    answer(service, response, classify(service, request)),
  );

  app.use((request) => {
    throw new RequestError(404, 'NotFound', `nothing answers ${request.method} ${request.path}`);
  });
  app.use(sendError(service));
  return app;
}

function checkModel(service: Service): RequestHandler {
  return (request, _response, next) => {
    const { model, version } = request.params;
    if (model !== service.name) {
      throw new RequestError(
        404,
        'ModelNotFound',
        `model ${JSON.stringify(model)} is not here; this server has "${service.name}"`,
      );
    }
    if (version !== undefined && version !== VERSION) {
      throw new RequestError(
        404,
        'ModelNotFound',
        `model "${service.name}" has version ${VERSION}, not ${JSON.stringify(version)}`,
      );
    }
    next();
  };
}

function servingOf(service: Service): NonNullable<Service['serving']> {
  if (!service.serving) throw new RequestError(503, 'NotReady', 'the model is still being loaded');
  return service.serving;
}

/** Takes an inference request in, or refuses it before its body is read. */
function admit(service: Service): RequestHandler {
  /** Bytes that the requests in progress may come to hold. */
  let reserved = 0;
  return (request, response, next) => {
    servingOf(service);
    const declared = Number(request.headers['content-length'] ?? Number.NaN);
    if (declared > service.maxBodyBytes) throw tooLarge(service);
    // A body that is compressed, or of unknown length, may become as large as bodies get.
    const known = Number.isFinite(declared) && request.headers['content-encoding'] === undefined;
    const bytes = known ? declared : service.maxBodyBytes;
    if (reserved + bytes > BODIES_IN_MEMORY * service.maxBodyBytes || service.inFlight >= REQUESTS_IN_PROGRESS) {
      service.metrics.failed('REJECTED');
      throw new RequestError(503, 'Overloaded', 'too many requests are in progress; send the request again later');
    }
    reserved += bytes;
    service.inFlight++;
    service.lastArrival = performance.now();
    response.once('close', () => {
      reserved -= bytes;
      service.inFlight--;
    });
    next();
  };
}

const tooLarge = ({ maxBodyBytes }: Service) =>
  new RequestError(413, 'BodyTooLarge', `the body has more than ${maxBodyBytes} bytes (maxBodyBytes)`);

function readBody(service: Service): RequestHandler {
  return express.raw({ type: () => true, limit: service.maxBodyBytes });
}

/** Told by its content later; this only refuses what is certainly meant as something else. */
const checkPictureType: RequestHandler = (request, _response, next) => {
  const type = request.headers['content-type']?.split(';')[0]?.trim().toLowerCase();
  // curl --data-binary says form-urlencoded unless told otherwise.
  const accepted = ['application/octet-stream', 'application/x-www-form-urlencoded'];
  if (type !== undefined && type !== '' && !type.startsWith('image/') && !accepted.includes(type)) {
    throw new RequestError(
      415,
      'UnsupportedMediaType',
      `the body must be the bytes of one JPEG, PNG or WebP picture (content-type image/* or application/octet-stream), not ${type}`,
    );
  }
  next();
};

interface Answer {
  headers: Record<string, string>;
  body: Buffer;
}

type Inference = (signal: AbortSignal) => Promise<Answer>;

/** Runs an inference, ends it if the client leaves, and counts what became of it. */
async function answer(service: Service, response: Response, inference: Inference): Promise<void> {
  const started = performance.now();
  const leaving = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished) leaving.abort(new Error('the client has left'));
  });
  try {
    const { headers, body } = await inference(leaving.signal);
    if (leaving.signal.aborted) return;
    response.set(headers).end(body);
    service.metrics.succeeded(performance.now() - started);
  } catch (error) {
    if (leaving.signal.aborted) {
      service.metrics.failed('CANCELED');
      return;
    }
    if (error instanceof OverloadError) service.metrics.failed('REJECTED');
    if (error instanceof InferenceError) service.metrics.failed('BACKEND');
    throw error;
  }
}

/** An empty body is left undefined by the parser. */
const bodyOf = (request: Request): Buffer => (Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0));

function infer(service: Service, request: Request): Inference {
  return async (signal): Promise<Answer> => {
    const { model, batcher, maxBatchSize } = servingOf(service);
    const headerLength = request.get('inference-header-content-length');
    const parsed = parseInferRequest(bodyOf(request), headerLength, model, maxBatchSize);
    const logits = await batcher.submit(parsed.pixels, parsed.count, signal);
    const { json, binary } = renderInferResponse(parsed, logits, service.name, model.output);
    if (!binary) return { headers: { 'content-type': 'application/json' }, body: Buffer.from(json) };
    const head = Buffer.from(json);
    return {
      headers: {
        'content-type': 'application/octet-stream',
        'inference-header-content-length': String(head.length),
      },
      body: Buffer.concat([head, binary]),
    };
  };
}

function classify(service: Service, request: Request): Inference {
  return async (signal) => {
    const { model, batcher } = servingOf(service);
    const limits = { ...DEFAULT_LIMITS, maxBytes: service.maxBodyBytes };
    const decoded = await decodePicture(bodyOf(request), model.preprocessing, limits);
    const planar = new Uint8Array(decoded.length);
    toChannelsFirst(decoded, model.preprocessing, planar);
    const pixels: Pixels = model.input.datatype === 'UINT8' ? planar : normalize(planar, model.preprocessing);
    const logits = await batcher.submit(pixels, 1, signal);
    const body = JSON.stringify({
      model: service.name,
      modelDigest: model.digest,
      predictions: predictionsOf(logits, model.classes),
    });
    return { headers: { 'content-type': 'application/json' }, body: Buffer.from(body) };
  };
}

/** The likeliest labels with their softmax probabilities; of equals the lower index first. */
function predictionsOf(
  logits: Float32Array,
  classes: readonly string[],
): { label: string; index: number; probability: number }[] {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const exponentials = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = exponentials.reduce((a, b) => a + b);
  return [...exponentials]
    .map((exponential, index) => ({ label: classes[index]!, index, probability: exponential / sum }))
    .sort((a, b) => b.probability - a.probability || a.index - b.index)
    .slice(0, TOP);
}

/** Errors as the protocol has them, `{"error": words}`, and with a `reason` for programs. */
function sendError(service: Service): ErrorRequestHandler {
  return (error: unknown, _request, response, next) => {
    if (response.headersSent || response.destroyed) {
      next(error);
      return;
    }
    const { status, reason, message } = describeError(error, service);
    if (status === 503) response.setHeader('retry-after', RETRY_AFTER_SECONDS);
    // The rest of a body that is not wanted is not read either.
    if (status === 413) response.setHeader('connection', 'close');
    response.status(status).json({ error: message, reason });
  };
}

function describeError(error: unknown, service: Service): { status: number; reason: string; message: string } {
  if (error instanceof RequestError) return error;
  if (error instanceof PictureError) {
    const status = error.reason === 'TooLarge' || error.reason === 'TooManyPixels' ? 413 : 400;
    return { status, reason: error.reason, message: error.message };
  }
  if (error instanceof OverloadError) return { status: 503, reason: 'Overloaded', message: error.message };
  if (error instanceof InferenceError) return { status: 500, reason: 'InferenceFailed', message: error.message };
  // express's own (URIError of a path) and body-parser's errors have a status, and `expose` if their words are for clients.
  const { status, type, expose, message } = error as {
    status?: number;
    type?: string;
    expose?: boolean;
    message?: string;
  };
  if (type === 'entity.too.large') return tooLarge(service);
  if (status !== undefined && status < 500 && (expose ?? true)) {
    return {
      status,
      reason: status === 415 ? 'UnsupportedEncoding' : 'InvalidRequest',
      message: message ?? 'bad request',
    };
  }
  console.error(error);
  return { status: 500, reason: 'InternalError', message: 'the server failed; its log says why' };
}
