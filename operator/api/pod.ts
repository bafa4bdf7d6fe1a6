/** What users may change of the pods made for them. */
import { z } from 'zod';

const Key = z.string().min(1).max(317);
const StringMap = z.record(Key, z.string().max(4096)).meta({ maxProperties: 64 });
const ObjectName = z.string().min(1).max(253);
const KeySelector = z.strictObject({
  name: ObjectName.describe('Name of the object, in the same namespace.'),
  key: z.string().min(1).max(253).describe('Its key.'),
  optional: z.boolean().optional().describe('Leave the variable out if there is no such key.'),
});

const EnvVar = z
  .strictObject({
    name: z
      .string()
      .min(1)
      .max(253)
      .regex(/^[-._a-zA-Z][-._a-zA-Z0-9]*$/)
      .describe('Name of the variable.'),
    value: z.string().max(32_768).optional().describe('Its value.'),
    valueFrom: z
      .strictObject({
        secretKeyRef: KeySelector.optional().describe('From a Secret.'),
        configMapKeyRef: KeySelector.optional().describe('From a ConfigMap.'),
        fieldRef: z
          .strictObject({ fieldPath: z.string().min(1).max(512).describe('As `metadata.name`.') })
          .optional()
          .describe('From the pod.'),
      })
      .optional()
      .describe('Where its value comes from.'),
  })
  .meta({
    rules: [{ rule: '!(has(self.value) && has(self.valueFrom))', message: 'value and valueFrom exclude each other' }],
  });

const Toleration = z.strictObject({
  key: z.string().max(317).optional().describe('Taint key; absent with operator `Exists` means all.'),
  operator: z.enum(['Exists', 'Equal']).optional().describe('Default `Equal`.'),
  value: z.string().max(253).optional().describe('Taint value.'),
  effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional().describe('Absent: all effects.'),
  tolerationSeconds: z.int().min(0).optional().describe('Seconds to stay, for `NoExecute`.'),
});

const Id = z
  .int()
  .min(1)
  .max(2 ** 31 - 1);

export const PodOverrides = z
  .strictObject({
    labels: StringMap.optional().describe('Labels added to the pods.'),
    annotations: StringMap.optional().describe('Annotations added to the pods.'),
    nodeSelector: StringMap.optional().describe('Labels a node must have.'),
    tolerations: z.array(Toleration).max(32).optional().describe('Taints that are tolerated.'),
    serviceAccountName: ObjectName.optional().describe('Service account of the pods; absent: the namespace’s default.'),
    imagePullSecrets: z
      .array(z.strictObject({ name: ObjectName.describe('Name of the Secret.') }))
      .max(16)
      .optional()
      .describe('Secrets for the image registry.'),
    env: z.array(EnvVar).max(64).optional().describe('Environment variables added to the container.'),
    securityContext: z
      .strictObject({
        runAsUser: Id.optional().describe('User id. Default: 1000.'),
        runAsGroup: Id.optional().describe('Group id. Default: the image’s.'),
        fsGroup: Id.optional().describe('Group that owns the volumes. Default: 1000.'),
      })
      .optional()
      .describe('Ids the pods run under; root is refused.'),
  })
  .describe('Changes to the pods.');
export type PodOverrides = z.input<typeof PodOverrides>;
