/** InferenceService: serves a verified model. */
import { z } from 'zod';
import { Batching, Digest } from '../../trainer-image/contract.ts';
import type { FoveaObject } from './object.ts';
import { PodOverrides } from './pod.ts';
import { referenceTo } from './reference.ts';
import { Resources } from './resources.ts';
import { COMMON_STATUS } from './status.ts';
import { Store } from './store.ts';

export const InferenceServiceSpec = z.strictObject({
  suspend: z.boolean().default(false).describe('No replicas, whatever `replicas` says.'),
  replicas: z
    .int()
    .min(0)
    .max(1000)
    .default(1)
    .meta({ schemaDefault: 1 })
    .describe('Predictor pods; also written by `kubectl scale`, HPA and KEDA.'),
  model: z
    .strictObject({
      type: z.enum(['Export']).describe('`Export`: a ModelExport.'),
      export: referenceTo('ModelExport').optional().describe('Only with type `Export`.'),
    })
    .meta({ union: { Export: 'export' }, unionRequired: true })
    .describe('What is served.'),
  runtime: z
    .strictObject({
      type: z.enum(['OnnxRuntime']).default('OnnxRuntime').describe('`OnnxRuntime`: the built-in server.'),
      image: z
        .string()
        .max(1024)
        .optional()
        .describe('Image of the server. Absent: the operator’s, kept for a revision’s life.'),
      batching: Batching.optional(),
      resources: Resources.optional(),
      pod: PodOverrides.optional(),
    })
    .optional()
    .describe('What serves it.'),
  rollout: z
    .strictObject({
      strategy: z
        .enum(['Rolling'])
        .default('Rolling')
        .describe('`Rolling`: a new revision takes over when all its replicas are ready.'),
    })
    .optional()
    .describe('How a new revision takes over.'),
  request: z
    .strictObject({
      maxBodyBytes: z.int().min(1).max(1_073_741_824).default(20_971_520).describe('Larger bodies get 413.'),
      timeoutSeconds: z.int().min(1).max(3600).default(30).describe('Slower answers become 504.'),
    })
    .optional()
    .describe('Bounds of a request.'),
  store: Store.optional(),
});
export type InferenceServiceSpec = z.input<typeof InferenceServiceSpec>;

export const InferenceServiceStatus = z.strictObject({
  ...COMMON_STATUS,
  url: z.string().max(2048).optional().describe('Base URL at the gateway; `:classify` takes a picture.'),
  replicas: z.int().min(0).optional().describe('Predictor pods of all revisions.'),
  selector: z.string().max(512).optional().describe('Label selector of the predictor pods, for the scale subresource.'),
  modelDigest: Digest.optional().describe('The model that serves.'),
  revisions: z
    .array(
      z.strictObject({
        name: z.string().max(63).describe('Name of its Deployment.'),
        modelDigest: Digest.describe('Its model.'),
        trafficPercent: z.int().min(0).max(100).describe('Its share of requests.'),
        replicas: z.int().min(0).describe('Pods wanted.'),
        ready: z.int().min(0).describe('Pods ready.'),
        image: z.string().max(1024).describe('Its image.'),
      }),
    )
    .max(3)
    .optional()
    .meta({ listMapKeys: ['name'] })
    .describe('The revisions that exist, newest first.'),
});
export type InferenceServiceStatus = z.infer<typeof InferenceServiceStatus>;
export type InferenceService = FoveaObject<InferenceServiceSpec, InferenceServiceStatus>;
