/** Carries out plans: every write is safe to repeat, and a stale cache costs a retry, never a second child. */
import { isDeepStrictEqual } from 'node:util';
import type { FoveaObject } from '../api/object.ts';
import type { Client } from '../kube/client.ts';
import { isAlreadyExists, isConflict, isNotFound } from '../kube/errors.ts';
import type { Recorder } from '../kube/events.ts';
import type { KubeObject, Resource } from '../kube/resources.ts';
import { DIGEST_ANNOTATION } from '../manifests/labels.ts';
import type { PlannedEvent } from '../plan/run.ts';

/**
 * Creates a child once. One of this name that exists is ours if it has our owner and digest.
 *
 * @returns whether this call made it
 * @throws Error if the name is taken by something else, so that it is tried again when that is gone
 */
export async function createOnce(client: Client, resource: Resource, child: KubeObject): Promise<boolean> {
  try {
    await client.create(resource, child);
    return true;
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
  }
  const { namespace, name = '', ownerReferences, annotations } = child.metadata ?? {};
  const existing = await client.get<KubeObject>(resource, namespace, name);
  const sameOwner = existing.metadata?.ownerReferences?.some((owner) => owner.uid === ownerReferences?.[0]?.uid);
  const sameDigest = existing.metadata?.annotations?.[DIGEST_ANNOTATION] === annotations?.[DIGEST_ANNOTATION];
  if (sameOwner && sameDigest && existing.metadata?.deletionTimestamp === undefined) return false;
  throw new Error(
    `${resource.kind} ${namespace}/${name} exists and is ${sameOwner ? 'of another run or going away' : 'not ours'}; waiting until it is gone`,
  );
}

/** Deletes exactly this child; a later one of the same name stays. */
export async function remove(client: Client, resource: Resource, child: KubeObject): Promise<void> {
  const { namespace, name = '', uid } = child.metadata ?? {};
  try {
    await client.delete(resource, namespace, name, uid);
  } catch (error) {
    if (!isNotFound(error) && !isConflict(error)) throw error;
  }
}

/**
 * Writes the status if it differs, against the resourceVersion that was observed: a status made of stale data is refused by
 * the server and planned again. Events are recorded after it, so that they are not said of what did not come to be.
 */
export async function writeStatus<Status extends object>(
  client: Client,
  resource: Resource,
  object: FoveaObject<unknown, Status>,
  status: Status,
  events: readonly PlannedEvent[],
  recorder: Recorder,
): Promise<void> {
  const wanted = JSON.parse(JSON.stringify(status)) as Status;
  if (!isDeepStrictEqual(wanted, object.status ?? {})) {
    await client.replaceStatus(resource, { ...object, status: wanted } as KubeObject);
  }
  for (const event of events) recorder.record(object, event);
}
