/**
 * Conditions as kstatus reads them (sigs.k8s.io/cli-utils, pkg/kstatus): `Ready` always, at most one of `Reconciling` and
 * `Stalled`, each with the generation it was observed at. A state decides all conditions of an object at once, so none is
 * left over from the state before.
 */
import type { Condition } from '../api/conditions.ts';

/** A condition as a plan wants it; generation and times are added by `conditions`. */
export interface Wanted {
  type: string;
  status: 'True' | 'False' | 'Unknown';
  reason: string;
  message: string;
}

/** Kubernetes bounds a condition's message at 32 KiB; a person reads far less. */
const MESSAGE_LENGTH = 1024;

/**
 * The list to write: `wanted` in its order, each with the time its status last changed. A type that is not wanted is dropped.
 */
export function conditions(
  before: readonly Condition[] | undefined,
  wanted: readonly Wanted[],
  generation: number,
  now: Date,
): Condition[] {
  return wanted.map((want) => {
    const old = before?.find((condition) => condition.type === want.type);
    return {
      ...want,
      message: want.message.slice(0, MESSAGE_LENGTH),
      observedGeneration: generation,
      lastTransitionTime: old?.status === want.status ? old.lastTransitionTime : timestamp(now),
    };
  });
}

/** RFC 3339 in whole seconds, as `metav1.Time` is written. */
export function timestamp(time: Date): string {
  return `${time.toISOString().slice(0, 19)}Z`;
}

/** Work goes on: kstatus InProgress. */
export function progressing(reason: string, message: string): Wanted[] {
  return [
    { type: 'Ready', status: 'Unknown', reason, message },
    { type: 'Reconciling', status: 'True', reason, message },
  ];
}

/** Something else must happen first; its change wakes this object. */
export function waiting(reason: string, message: string): Wanted[] {
  return [
    { type: 'Ready', status: 'False', reason, message },
    { type: 'Reconciling', status: 'True', reason, message },
  ];
}

/** The user must change something: kstatus Failed. */
export function stalled(reason: string, message: string): Wanted[] {
  return [
    { type: 'Ready', status: 'False', reason, message },
    { type: 'Stalled', status: 'True', reason, message },
  ];
}

export function suspended(message: string): Wanted[] {
  return [
    { type: 'Ready', status: 'False', reason: 'Suspended', message },
    { type: 'Suspended', status: 'True', reason: 'Suspended', message },
  ];
}

export function ready(reason: string, message: string): Wanted[] {
  return [{ type: 'Ready', status: 'True', reason, message }];
}
