/**
 * What a status may never say, however the operator was disturbed: looked at in every version of every object that ever was, in
 * the order in which they came to be, against what had come to be by then. Pure.
 */
import type { V1Deployment, V1Pod } from '@kubernetes/client-node';
import type { Condition } from '../../operator/api/conditions.ts';
import type { FoveaObject } from '../../operator/api/object.ts';
import type { RunStatus } from '../../operator/api/status.ts';
import { TerminationMessage } from '../../trainer-image/contract.ts';
import { inOrder, type Moment } from './timeline.ts';

/** The status of any of the four kinds, as far as it is looked at. */
type Status = RunStatus & {
  ring?: { generation: number };
  revisions?: { name: string; modelDigest: string; trafficPercent: number; ready: number }[];
};
type Object = FoveaObject<{ suspend?: boolean; replicas?: number }, Status>;

const RUN_KINDS = ['Dataset', 'TrainingJob', 'ModelExport'];

/** What had come to be by some moment. */
interface Truth {
  /** Digests of artifacts whose work had ended well, and of those that were there from the start. */
  made: Set<string>;
  failed: boolean;
  /** Names of Jobs that were created. */
  jobs: Set<string>;
  /** Most replicas that were ever ready, by Deployment. */
  ready: Map<string, number>;
}

/**
 * @param given digests of artifacts that were there from the start
 * @returns sentences, each naming object and resourceVersion
 */
export function lies(moments: readonly Moment[], given: Iterable<string>): string[] {
  const truth: Truth = {
    made: new Set(given),
    failed: false,
    jobs: new Set(),
    ready: new Map(),
  };
  const before = new Map<string, Object>();
  const found: string[] = [];
  for (const { type, kind, version, object } of inOrder(moments)) {
    const { name = '', uid = '' } = object.metadata ?? {};
    const key = `${kind}/${name}`;
    if (kind === 'Pod') learn(truth, object as V1Pod);
    else if (kind === 'Job' || kind === 'Deployment') {
      if (kind === 'Job') truth.jobs.add(name);
      const readyReplicas = (object as V1Deployment).status?.readyReplicas ?? 0;
      if (kind === 'Deployment') truth.ready.set(name, Math.max(readyReplicas, truth.ready.get(name) ?? 0));
    } else if (type !== 'DELETED') {
      const now = object as Object;
      const said = [...untrue(kind, now, truth), ...backward(before.get(uid), now)];
      found.push(...said.map((sentence) => `${key} at resourceVersion ${version}: ${sentence}`));
      before.set(uid, now);
    }
  }
  return [...new Set(found)];
}

function learn(truth: Truth, pod: V1Pod): void {
  const terminated = pod.status?.containerStatuses?.[0]?.state?.terminated;
  if (!terminated) return;
  const { result } = TerminationMessage.parse(JSON.parse(terminated.message ?? '{}'));
  if (terminated.exitCode === 0 && result) truth.made.add(result.artifact.digest);
  if (terminated.exitCode !== 0) truth.failed = true;
}

function conditionOf(status: Status, type: string): Condition | undefined {
  return status.conditions?.find((condition) => condition.type === type);
}

/** What one version says that is not so. */
function untrue(kind: string, { metadata, spec, status }: Object, truth: Truth): string[] {
  if (!status) return [];
  const wrong: string[] = [];
  const is = (type: string) => conditionOf(status, type)?.status === 'True';
  const { generation } = metadata;
  const observed = status.observedGeneration ?? 0;
  if (observed > generation) wrong.push(`observedGeneration ${observed} is above generation ${generation}`);
  for (const { type, observedGeneration = 0 } of status.conditions ?? []) {
    if (observedGeneration !== observed) {
      wrong.push(`condition ${type} is of generation ${observedGeneration}, the status of ${observed}`);
    }
  }
  if (status.conditions && !conditionOf(status, 'Ready')) wrong.push('there are conditions, but not Ready');
  if (is('Reconciling') && is('Stalled')) wrong.push('Reconciling and Stalled are both True');
  if (is('Ready') && (is('Reconciling') || is('Stalled') || is('Failed') || is('Suspended'))) {
    wrong.push('Ready is True beside Reconciling, Stalled, Failed or Suspended');
  }
  if (is('Suspended') && observed === generation && spec.suspend !== true) wrong.push('it says Suspended and is not');

  if (RUN_KINDS.includes(kind)) {
    const { artifact, history = [], inputDigest, jobName, lineage = [], lastFailure } = status;
    if (artifact && !truth.made.has(artifact.digest)) wrong.push(`artifact ${artifact.digest} was never made`);
    for (const { kind: input, digest } of lineage) {
      if (!truth.made.has(digest)) wrong.push(`lineage names ${input} ${digest}, which was never made`);
    }
    if (is('Ready') || is('Complete')) {
      const run = history.find((entry) => entry.inputDigest === inputDigest);
      if (!artifact) wrong.push('Ready or Complete is True without an artifact');
      else if (run?.result !== 'Succeeded' || run.artifactDigest !== artifact.digest) {
        wrong.push('Ready or Complete is True, but history does not say that the run of inputDigest made the artifact');
      }
    }
    for (const { result, artifactDigest } of history) {
      if (result === 'Succeeded' && !truth.made.has(artifactDigest ?? '')) {
        wrong.push(`history says that ${artifactDigest} was made, and it never was`);
      }
    }
    if ((lastFailure?.exitCode || is('Failed')) && !truth.failed) {
      wrong.push('it says that something failed, and nothing did');
    }
    if (jobName && !truth.jobs.has(jobName)) wrong.push(`jobName is ${jobName}, which was never created`);
  } else {
    const { revisions = [] } = status;
    const traffic = revisions.reduce((sum, revision) => sum + revision.trafficPercent, 0);
    if (traffic !== 0 && traffic !== 100) wrong.push(`the revisions' traffic adds up to ${traffic} %`);
    for (const { name, modelDigest, ready } of revisions) {
      if (!truth.ready.has(name)) wrong.push(`revision ${name} was never created`);
      if (ready > (truth.ready.get(name) ?? 0)) wrong.push(`revision ${name} never had ${ready} ready replicas`);
      if (!truth.made.has(modelDigest)) wrong.push(`revision ${name} serves ${modelDigest}, which was never made`);
    }
    const serving = revisions.find((revision) => revision.trafficPercent > 0);
    if (is('Available') && !((serving?.ready ?? 0) > 0))
      wrong.push('Available is True and no replica with traffic is ready');
    if (is('Ready') && !serving) wrong.push('Ready is True and no revision has the traffic');
  }
  return wrong;
}

/** What went back from one version of an object to the next. */
function backward(before: Object | undefined, now: Object): string[] {
  const old = before?.status;
  const status = now.status;
  if (!old) return [];
  if (!status) return ['the status vanished'];
  const wrong: string[] = [];
  if ((status.observedGeneration ?? 0) < (old.observedGeneration ?? 0)) wrong.push('observedGeneration went back');
  if ((status.ring?.generation ?? 0) < (old.ring?.generation ?? 0)) wrong.push('the ring generation went back');
  if (old.artifact && !status.artifact) wrong.push('the artifact vanished');
  if (old.inputDigest === status.inputDigest && (status.attempt ?? 0) < (old.attempt ?? 0))
    wrong.push('attempt went back');
  for (const entry of old.history ?? []) {
    const kept = status.history?.find((run) => run.inputDigest === entry.inputDigest);
    // The last ten are kept.
    if (!kept && (status.history?.length ?? 0) < 10) wrong.push(`history lost the run ${entry.inputDigest}`);
    if (kept && entry.result === 'Succeeded' && kept.result !== 'Succeeded') {
      wrong.push(`history says now that the run ${entry.inputDigest} failed, which had succeeded`);
    }
  }
  return wrong;
}
