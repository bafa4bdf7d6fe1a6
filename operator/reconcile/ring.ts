/** Where a pod that asks for a ring belongs, as the caches have it. */
import type { V1Pod } from '@kubernetes/client-node';
import { COMPONENTS, DIGEST_ANNOTATION } from '../manifests/labels.ts';
import { type Membership, membership } from '../plan/ring.ts';
import { attemptOf, isDeleting, podsOf } from '../plan/workers.ts';
import { ownerKey, type World } from './world.ts';

/** A pod as its token names it. */
export interface AskingPod {
  namespace: string;
  podName: string;
  podUid: string;
}

export interface Seat {
  /** Key of the TrainingJob. */
  key: string;
  jobUid: string;
  /** The pod's place in the present ring; undefined if it is in none, or that one is broken. */
  membership: Membership | undefined;
}

export type Unseated = { refused: { status: number; reason: string; message: string } };

/** Labels and owners alone are believed: the pod's own Job, as we watch it, and the TrainingJob that owns it. */
export function seatOf(world: Pick<World, 'pods' | 'jobs' | 'trainingJobs'>, asking: AskingPod): Seat | Unseated {
  const { namespace, podName, podUid } = asking;
  const refuse = (status: number, reason: string, message: string): Unseated => ({
    refused: { status, reason, message: `pod ${namespace}/${podName} ${message}` },
  });
  const pod: V1Pod | undefined = world.pods.get(namespace, podName);
  if (!pod || pod.metadata?.uid !== podUid) return refuse(404, 'UnknownPod', 'is not watched');
  const name = pod.metadata.labels?.[COMPONENTS.trainingjob.ownerLabel];
  const owner = pod.metadata.ownerReferences?.find((reference) => reference.controller);
  if (name === undefined || owner?.kind !== 'Job') return refuse(403, 'NoWorker', 'is no worker of a TrainingJob');
  const job = world.jobs.get(namespace, owner.name);
  const object = world.trainingJobs.get(namespace, name);
  if (job?.metadata?.uid !== owner.uid || !object) {
    return refuse(404, 'UnknownJob', `is of Job ${owner.name} of TrainingJob ${name}, which is not watched`);
  }
  if (!job.metadata.ownerReferences?.some((reference) => reference.uid === object.metadata.uid)) {
    return refuse(403, 'OtherJob', `is of Job ${owner.name}, which does not work for TrainingJob ${name}`);
  }
  const { status } = object;
  const sameRun = job.metadata.annotations?.[DIGEST_ANNOTATION] === status?.inputDigest;
  if (isDeleting(job) || (sameRun && attemptOf(job) < (status?.attempt ?? 1))) {
    return refuse(403, 'FormerAttempt', `is of Job ${owner.name}, an attempt that is over`);
  }
  const pods = podsOf(job, world.pods.by('owner', ownerKey('trainingjob', namespace, name)));
  return {
    key: `${namespace}/${name}`,
    jobUid: owner.uid,
    membership: sameRun ? membership(status?.ring, job, pods, podUid) : undefined,
  };
}
