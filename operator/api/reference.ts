/** References to other objects: by name, in the same namespace. They never cross namespaces. */
import { z } from 'zod';

const Name = z
  .string()
  .max(253)
  .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/);

/** `{name}` of an object of `kind`. */
export function referenceTo(kind: string) {
  return z.strictObject({ name: Name.describe(`Name of the ${kind}, in the same namespace.`) });
}
