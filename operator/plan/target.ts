/** Which run does an object ask for, and is it done? Pure. */
import { inputDigest } from '../api/digest.ts';
import type { FoveaObject } from '../api/object.ts';
import type { HistoryEntry, LineageEntry, RunStatus } from '../api/status.ts';
import type { Store } from '../api/store.ts';
import { REQUESTED_AT_ANNOTATION } from '../manifests/labels.ts';

export type Rerun = 'OnSpecChange' | 'OnInputChange' | 'Never';
export type RunComponent = 'dataset' | 'trainingjob' | 'modelexport';
export type RunObject = FoveaObject<{ suspend?: boolean; store?: Store; rerun?: Rerun }, RunStatus>;

/** An object consumed by name: what it offers now, or why it does not yet. */
export type Input = { entry: LineageEntry; uri: string } | { reason: string; message: string };

/** The run that the object asks for now: its digest and what it consumes. */
export type Target =
  | { digest: string; inputs: LineageEntry[] }
  | { waiting: { reason: string; message: string } }
  | { stalled: { reason: string; message: string } };

/**
 * Which run does the object ask for? One whose spec is unchanged keeps the inputs it was started with, unless
 * `rerun: OnInputChange` and an input now offers something else. An input that offers nothing at the moment is no change.
 */
export function target(component: RunComponent, object: RunObject, rerun: Rerun, inputs: readonly Input[]): Target {
  const requestedAt = object.metadata.annotations?.[REQUESTED_AT_ANNOTATION];
  const digestOf = (entries: readonly LineageEntry[]) =>
    inputDigest(
      component,
      object.spec,
      entries.map(({ kind, digest }) => ({ kind, digest })),
      requestedAt,
    );
  const recorded = object.status?.lineage ?? [];
  const started = object.status?.inputDigest;
  const unchanged = started !== undefined && digestOf(recorded) === started;
  const missing = inputs.find((input) => 'reason' in input);
  if (unchanged && (missing || rerun !== 'OnInputChange')) return { digest: started, inputs: recorded };
  if (missing) return { waiting: missing };
  const offered = inputs.map((input) => (input as { entry: LineageEntry }).entry);
  if (started !== undefined && !unchanged && rerun === 'Never' && !requestedAfterStart(object, requestedAt)) {
    return {
      stalled: {
        reason: 'RerunNever',
        message: `The spec changed and spec.rerun is Never. Annotate ${REQUESTED_AT_ANNOTATION}=<time> to run it, or change spec.rerun.`,
      },
    };
  }
  return { digest: digestOf(offered), inputs: offered };
}

function requestedAfterStart(object: RunObject, requestedAt: string | undefined): boolean {
  const lastStart = object.status?.history?.[0]?.startTime;
  return requestedAt !== undefined && (lastStart === undefined || Date.parse(requestedAt) > Date.parse(lastStart));
}

/** Whether the run of this digest is done and its artifact the one that the status offers. */
export function isDone(status: RunStatus | undefined, digest: string): boolean {
  const entry = status?.history?.find((run) => run.inputDigest === digest);
  return entry?.result === 'Succeeded' && status?.artifact?.digest === entry.artifactDigest;
}

/**
 * The failure this run ended with. A failure of an earlier generation does not count: what the user changed since, though it
 * changes no number (a memory limit, say), is reason enough to try again.
 */
export function failedBefore(
  status: RunStatus | undefined,
  digest: string,
  generation: number,
): HistoryEntry | undefined {
  const latest = status?.history?.[0];
  const same = latest?.inputDigest === digest && latest.generation === generation;
  return same && latest.result === 'Failed' ? latest : undefined;
}

/** The kind's reason words for an input that is missing or not ready. */
export function inputOf(
  kind: string,
  name: string,
  namespace: string,
  field: string,
  object: FoveaObject<unknown, RunStatus> | undefined,
): Input {
  if (!object) {
    return {
      reason: `${kind}NotFound`,
      message: `${kind} ${name} does not exist in namespace ${namespace}; apply it or correct ${field}.`,
    };
  }
  const readyCondition = object.status?.conditions?.find((c) => c.type === 'Ready');
  const isReady = readyCondition?.status === 'True' && readyCondition.observedGeneration === object.metadata.generation;
  if (!isReady || !object.status?.artifact) {
    const why = readyCondition?.message ? `: ${readyCondition.message}` : '.';
    return { reason: `${kind}NotReady`, message: `${kind} ${name} is not ready${why}` };
  }
  const { digest, uri } = object.status.artifact;
  return { entry: { kind, name, uid: object.metadata.uid, generation: object.metadata.generation, digest }, uri };
}
