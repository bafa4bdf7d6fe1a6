/** Compute resources of a container. */
import { z } from 'zod';

/** apimachinery, resource.Quantity, without a sign: a negative amount of anything is refused by Kubernetes later on. */
const QUANTITY = /^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$/;

const Quantity = z
  .union([z.int().min(0), z.string().max(32).regex(QUANTITY)])
  .describe('A quantity as Kubernetes writes it: `500m`, `2Gi`, `4`.');

const ResourceList = z.record(z.string().min(1).max(253), Quantity).meta({ maxProperties: 16 });

export const Resources = z
  .strictObject({
    requests: ResourceList.optional().describe('What the scheduler sets aside, such as `{cpu: 500m, memory: 1Gi}`.'),
    limits: ResourceList.optional().describe('What the container may use at most.'),
  })
  .meta({
    rules: [
      {
        rule: '!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)',
        message: 'a request must not be above the limit of the same name',
        fieldPath: '.requests',
      },
    ],
  })
  .describe('Requests and limits; what is left out is filled in, since every container gets both.');
export type Resources = z.input<typeof Resources>;
