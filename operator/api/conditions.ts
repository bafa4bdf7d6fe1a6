/** Conditions as kstatus reads them. */
import { z } from 'zod';

export const Condition = z
  .strictObject({
    type: z.string().max(316).describe('`Ready`, at most one of `Reconciling` and `Stalled`, and the kind’s own.'),
    status: z.enum(['True', 'False', 'Unknown']).describe('`True`, `False` or `Unknown`.'),
    reason: z.string().max(1024).describe('One word for programs.'),
    message: z.string().max(32_768).describe('A sentence for people: what is the matter, and what to do.'),
    observedGeneration: z.int().min(0).describe('Generation of the spec it speaks of.'),
    lastTransitionTime: z.string().max(64).meta({ format: 'date-time' }).describe('When `status` last changed.'),
  })
  .describe('One aspect of the object’s state.');
export type Condition = z.infer<typeof Condition>;
