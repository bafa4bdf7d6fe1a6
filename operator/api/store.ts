/** Where a kind's bytes live. */
import { z } from 'zod';

export const ClaimName = z
  .string()
  .max(253)
  .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/);

/** A path inside a volume: no part is `..`, so that it cannot leave it. */
export const VolumePath = z
  .string()
  .max(512)
  .meta({
    rules: [{ rule: "!self.split('/').exists(part, part == '..')", message: "must not contain '..'" }],
  });

export const Store = z
  .strictObject({
    type: z.enum(['PVC']).default('PVC').describe('`PVC`: a PersistentVolumeClaim of the namespace.'),
    pvc: z
      .strictObject({
        claimName: ClaimName.default('fovea-store').describe('Name of the claim.'),
        path: VolumePath.default('/').describe('Folder of the volume that is the store.'),
      })
      .optional()
      .describe('Only with type `PVC`.'),
  })
  .meta({ union: { PVC: 'pvc' } })
  .describe(
    'Content-addressed store for results. Objects that consume each other use the same. Absent: the claim `fovea-store`.',
  );
export type Store = z.input<typeof Store>;
