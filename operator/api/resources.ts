/** Compute resources of a container. */
import { z } from 'zod';

const Quantity = z
  .union([z.int(), z.string().max(64)])
  .meta({ quantity: true })
  .describe('A quantity as Kubernetes writes it: `500m`, `2Gi`.');

const ResourceList = z.record(z.string().min(1).max(253), Quantity).meta({ maxProperties: 16 });

export const Resources = z
  .strictObject({
    requests: ResourceList.optional().describe('What the scheduler sets aside.'),
    limits: ResourceList.optional().describe('What the container may use at most.'),
  })
  .describe('Requests and limits; what is left out is filled in, since every container gets both.');
export type Resources = z.input<typeof Resources>;
