/** InferenceService: serves a verified model. */
import { z } from 'zod';
import { Batching, Digest } from '../../trainer-image/contract.ts';
import type { FoveaObject } from './object.ts';
import { PodOverrides } from './pod.ts';
import { referenceTo } from './reference.ts';
import { Resources } from './resources.ts';
import { COMMON_STATUS, ResolvedImage, RUN_STATUS, Time } from './status.ts';
import { Store } from './store.ts';

export const InferenceServiceSpec = z.strictObject({
  suspend: z.boolean().default(false).describe('No replicas, whatever `replicas` says.'),
  replicas: z
    .int()
    .min(0)
    .max(1000)
    .default(1)
    .meta({ schemaDefault: 1 })
    .describe(
      'Predictor pods, where `scaling` is absent or of mode `External`; also written by `kubectl scale`, HPA and KEDA.',
    ),
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
  scaling: z
    .strictObject({
      mode: z
        .enum(['BuiltIn', 'External'])
        .default('BuiltIn')
        .describe(
          '`BuiltIn`: the operator scales on the requests it measures, and `replicas` has no meaning. `External`: `replicas` says how many.',
        ),
      minReplicas: z.int().min(1).max(1000).default(1).describe('Fewest predictor pods. Only with mode `BuiltIn`.'),
      maxReplicas: z.int().min(1).max(1000).default(1).describe('Most predictor pods. Only with mode `BuiltIn`.'),
      target: z
        .strictObject({
          type: z
            .enum(['PendingRequests'])
            .default('PendingRequests')
            .describe('`PendingRequests`: requests that were received and are not answered yet, waiting or at work.'),
          perReplica: z
            .int()
            .min(1)
            .max(10_000)
            .default(4)
            .describe('So many for each replica; more of them bring another replica.'),
        })
        .optional()
        .describe('What a replica is meant to carry. Only with mode `BuiltIn`.'),
      scaleDownDelaySeconds: z
        .int()
        .min(0)
        .max(3600)
        .default(120)
        .describe(
          'Seconds in which fewer replicas must have been enough all the time before there are fewer. More come at once. Only with mode `BuiltIn`.',
        ),
    })
    .meta({
      rules: [
        {
          rule: '(has(self.minReplicas) ? self.minReplicas : 1) <= (has(self.maxReplicas) ? self.maxReplicas : 1)',
          message: 'minReplicas is greater than maxReplicas (each is 1 where it is absent)',
        },
        {
          rule: "!has(self.mode) || self.mode != 'External' || !(has(self.minReplicas) || has(self.maxReplicas) || has(self.target) || has(self.scaleDownDelaySeconds))",
          message: 'with mode External only spec.replicas says how many there are',
        },
      ],
    })
    .optional()
    .describe('How many predictor pods there are. Absent: `replicas`, as with mode `External`. Starts no revision.'),
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
  inputDigest: Digest.optional().describe('Digest of what makes a revision: the runtime, and the model it serves.'),
  resolved: z
    .strictObject({ image: ResolvedImage, batching: Batching })
    .optional()
    .describe('What the newest revision was made with.'),
  lastFailure: RUN_STATUS.lastFailure.describe('What stands in the way of the newest revision.'),
  lineage: RUN_STATUS.lineage.describe('What the newest revision serves.'),
  history: RUN_STATUS.history.describe('The last revisions that took over the traffic, newest first.'),
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
  scaling: z
    .strictObject({
      desired: z.int().min(0).describe('Predictor pods that each revision should have.'),
      reason: z.string().max(256).describe('Why it is so many.'),
      lastScaleTime: Time.optional().describe('When that was decided.'),
    })
    .optional()
    .describe('The last decision of `spec.scaling`; absent where `spec.replicas` decides.'),
});
export type InferenceServiceStatus = z.infer<typeof InferenceServiceStatus>;
export type InferenceService = FoveaObject<InferenceServiceSpec, InferenceServiceStatus>;
