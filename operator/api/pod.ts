/** What users may change of the pods made for them. */
import { z } from 'zod';

/** `prefix/name`; Kubernetes bounds the prefix at 253 characters and the name at 63. */
const QualifiedName = z
  .string()
  .max(317)
  .regex(/^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/);
const LabelValue = z
  .string()
  .max(63)
  .regex(/^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$/);

/** A schema has no word for the form of a map's keys, so a rule says it: a pod refused later would be far from its cause. */
const KEYS = {
  maxProperties: 64,
  rules: [
    {
      rule: 'self.all(key, !format.qualifiedName().validate(key).hasValue())',
      message: 'keys must be qualified names, such as app or example.com/app',
    },
  ],
};
const Labels = z.record(QualifiedName, LabelValue).meta(KEYS);
const Annotations = z.record(QualifiedName, z.string().max(4096)).meta(KEYS);

const ObjectName = z
  .string()
  .max(253)
  .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/);

const KeySelector = z.strictObject({
  name: ObjectName.describe('Name of the object, in the same namespace.'),
  key: z.string().min(1).max(253).describe('Its key.'),
  optional: z
    .boolean()
    .optional()
    .describe('True: the variable is left out if the object or key is missing. Absent: the pod waits for it.'),
});

const EnvVar = z
  .strictObject({
    name: z
      .string()
      .max(253)
      .regex(/^[-._a-zA-Z][-._a-zA-Z0-9]*$/)
      .describe('Name of the variable.'),
    value: z.string().max(32_768).optional().describe('Its value.'),
    valueFrom: z
      .strictObject({
        secretKeyRef: KeySelector.optional().describe('A key of a Secret.'),
        configMapKeyRef: KeySelector.optional().describe('A key of a ConfigMap.'),
        fieldRef: z
          .strictObject({
            fieldPath: z.string().min(1).max(512).describe('Such as `metadata.name` or `spec.nodeName`.'),
          })
          .optional()
          .describe('A field of the pod.'),
      })
      .meta({
        rules: [
          {
            rule: '(has(self.secretKeyRef) ? 1 : 0) + (has(self.configMapKeyRef) ? 1 : 0) + (has(self.fieldRef) ? 1 : 0) == 1',
            message: 'exactly one of secretKeyRef, configMapKeyRef and fieldRef must be given',
          },
        ],
      })
      .optional()
      .describe('Where its value comes from; one of the three.'),
  })
  .meta({
    rules: [
      { rule: '!(has(self.value) && has(self.valueFrom))', message: 'value and valueFrom exclude each other' },
      {
        rule: "!self.name.startsWith('FOVEA_') && self.name != 'POD_IP'",
        message: 'FOVEA_* and POD_IP are set by the operator',
        fieldPath: '.name',
      },
    ],
  });

const Toleration = z
  .strictObject({
    key: z.string().max(317).optional().describe('Taint key; absent with operator `Exists` means all.'),
    operator: z.enum(['Exists', 'Equal']).optional().describe('Absent: `Equal`.'),
    value: z.string().max(253).optional().describe('Taint value. Only with operator `Equal`.'),
    effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional().describe('Absent: all effects.'),
    tolerationSeconds: z
      .int()
      .min(0)
      .max(2 ** 31 - 1)
      .optional()
      .describe('Seconds until eviction. Only with effect `NoExecute`.'),
  })
  .meta({
    rules: [
      {
        rule: "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
        message: 'without key, operator must be Exists',
      },
    ],
  });

/** A user or group id of a process that is not root. */
const Id = z
  .int()
  .min(1)
  .max(2 ** 31 - 1);

export const PodOverrides = z
  .strictObject({
    labels: Labels.optional().describe('Labels added to the pods. The operator’s own win.'),
    annotations: Annotations.optional().describe('Annotations added to the pods. The operator’s own win.'),
    nodeSelector: Labels.optional().describe('Labels a node must have.'),
    tolerations: z.array(Toleration).max(32).optional().describe('Taints that are tolerated.'),
    serviceAccountName: ObjectName.optional().describe('Service account of the pods. Absent: `default`.'),
    imagePullSecrets: z
      .array(z.strictObject({ name: ObjectName.describe('Name of the Secret, in the same namespace.') }))
      .max(16)
      .optional()
      .meta({ listMapKeys: ['name'] })
      .describe('Secrets for the image registry.'),
    env: z
      .array(EnvVar)
      .max(64)
      .optional()
      .meta({ listMapKeys: ['name'] })
      .describe('Environment variables added to the container.'),
    terminationGracePeriodSeconds: z
      .int()
      .min(1)
      .max(86_400)
      .optional()
      .describe(
        'Time between being told to stop and being killed, in which a worker saves its state and a server answers what it has. Absent: 60.',
      ),
    securityContext: z
      .strictObject({
        runAsUser: Id.optional().describe('User id. Absent: 1000.'),
        runAsGroup: Id.optional().describe('Group id. Absent: the image’s.'),
        fsGroup: Id.optional().describe('Group that owns the volumes. Absent: 1000.'),
      })
      .optional()
      .describe('Ids the pods run under; root is refused.'),
  })
  .describe('Changes to the pods.');
export type PodOverrides = z.input<typeof PodOverrides>;
