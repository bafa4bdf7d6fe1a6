/**
 * An InferenceService's revisions: which Deployment should exist, which of them gets the requests. Pure.
 *
 * A revision is a model with a runtime. A new one is made beside the one that serves; when all its replicas are ready the
 * status gives it all traffic, and once that is written the old one goes. A revision is frozen: an operator upgrade changes none.
 */
import type { CoreV1Event, V1Deployment, V1PersistentVolumeClaim, V1Pod } from '@kubernetes/client-node';
import { Batching, PREDICTOR_PORT } from '../../trainer-image/contract.ts';
import { checkSpec } from '../api/check.ts';
import { inputDigest } from '../api/digest.ts';
import type { InferenceService, InferenceServiceStatus } from '../api/inferenceservice.ts';
import type { HistoryEntry, LineageEntry } from '../api/status.ts';
import { revisionDeployment } from '../manifests/deployment.ts';
import { COMPONENTS, childName, DIGEST_ANNOTATION, RESOLVED_ANNOTATION, REVISION_LABEL } from '../manifests/labels.ts';
import { trainerPodTemplate } from '../manifests/pod.ts';
import { threads, withDefaults } from '../manifests/resources.ts';
import { conditions, progressing, ready, stalled, suspended, timestamp, type Wanted, waiting } from './conditions.ts';
import { asBefore, isNews, isTerminal, remember, revisionObstacle } from './failure.ts';
import { type OperatorOptions, ownerReference, type PlannedEvent } from './run.ts';
import { builtInScaling, type LoadSample, planScaling } from './scaling.ts';
import { observeStore } from './store.ts';
import type { Input } from './target.ts';

export interface ObservedService {
  object: InferenceService;
  model: Input;
  /** Deployments and pods owned by the object. */
  deployments: V1Deployment[];
  pods: V1Pod[];
  claim: V1PersistentVolumeClaim | undefined;
  /** About the claim. */
  events: CoreV1Event[];
  /** What was measured of its requests, oldest first; none where `spec.replicas` decides. */
  load: readonly LoadSample[];
  options: OperatorOptions;
  now: Date;
}

export interface ServicePlan {
  create: V1Deployment[];
  scale: { deployment: V1Deployment; replicas: number }[];
  remove: V1Deployment[];
  status: InferenceServiceStatus;
  events: PlannedEvent[];
}

/** What a revision was made with; it is kept at its Deployment. */
interface Revision {
  image: string;
  modelDigest: string;
  batching: Batching;
  /** What was consumed. */
  lineage: LineageEntry;
  /** Generation of the spec. */
  generation: number;
}

const frozen = (deployment: V1Deployment): Revision =>
  JSON.parse(deployment.metadata?.annotations?.[RESOLVED_ANNOTATION] ?? '{}');
const nameOf = (deployment: V1Deployment) => deployment.metadata?.name ?? '';
const readyReplicas = (deployment: V1Deployment) => deployment.status?.readyReplicas ?? 0;

/** All replicas that are wanted now are ready, and the Deployment controller has seen how many that is. */
function isReady(deployment: V1Deployment, replicas: number): boolean {
  return (
    deployment.status?.observedGeneration === deployment.metadata?.generation &&
    deployment.spec?.replicas === replicas &&
    readyReplicas(deployment) >= replicas
  );
}

export function planService(observed: ObservedService): ServicePlan {
  const { object, model, options, now } = observed;
  const { spec } = object;
  const { name, namespace, generation } = object.metadata;
  const before: InferenceServiceStatus = object.status ?? {};
  const living = observed.deployments.filter((d) => d.metadata?.deletionTimestamp === undefined);
  /** The revision that has the traffic now, as far as it still exists. */
  const servingName = before.revisions?.find((revision) => revision.trafficPercent > 0)?.name;
  const serving = living.find((deployment) => nameOf(deployment) === servingName);

  const problems = checkSpec('InferenceService', object);
  const builtIn = builtInScaling(spec.scaling);
  // While nothing is to run, or nobody can say what, nothing is decided.
  const scaling =
    spec.suspend || problems.length > 0
      ? before.scaling
      : builtIn &&
        planScaling(builtIn, before.scaling, observed.load, serving?.spec?.replicas ?? spec.replicas ?? 1, now);
  const replicas = spec.suspend ? 0 : (scaling?.desired ?? spec.replicas ?? 1);
  const plan: ServicePlan = { create: [], scale: [], remove: [], events: [], status: { ...before } };
  if (scaling && before.scaling && scaling.desired !== before.scaling.desired) {
    const message = `From ${before.scaling.desired} to ${scaling.desired} replicas: ${scaling.reason}.`;
    plan.events.push({ type: 'Normal', reason: 'Scaled', message });
  }

  /** What stands in the way of the newest revision. */
  let lastFailure: InferenceServiceStatus['lastFailure'];
  const settle = (wanted: Wanted[], traffic: V1Deployment | undefined, kept: V1Deployment[]): ServicePlan => {
    const available = traffic !== undefined && readyReplicas(traffic) > 0;
    const gone = servingName !== undefined && traffic === undefined;
    plan.scale = kept
      .filter((deployment) => deployment.spec?.replicas !== replicas)
      .map((deployment) => ({ deployment, replicas }));
    plan.remove = living.filter((deployment) => !kept.includes(deployment));
    const newest = kept[0] && frozen(kept[0]);
    plan.status = {
      observedGeneration: generation,
      conditions: conditions(
        before.conditions,
        [
          ...wanted,
          {
            type: 'Available',
            status: available ? 'True' : 'False',
            reason: available ? 'ReplicasReady' : 'NoReadyReplica',
            message: available
              ? `Revision ${nameOf(traffic)} answers with ${readyReplicas(traffic)} replicas.`
              : gone
                ? `Revision ${servingName} is gone.`
                : 'No replica is ready to answer.',
          },
        ],
        generation,
        now,
      ),
      url: `${options.gatewayUrl}/v1/namespaces/${namespace}/inferenceservices/${name}`,
      replicas: kept.reduce((sum, deployment) => sum + (deployment.status?.replicas ?? 0), 0),
      selector: `${COMPONENTS.inferenceservice.ownerLabel}=${name}`,
      modelDigest: traffic ? frozen(traffic).modelDigest : before.modelDigest,
      revisions: kept.slice(0, 3).map((deployment) => ({
        name: nameOf(deployment),
        modelDigest: frozen(deployment).modelDigest,
        trafficPercent: deployment === traffic ? 100 : 0,
        replicas,
        ready: readyReplicas(deployment),
        image: frozen(deployment).image,
      })),
      ...(scaling ? { scaling } : {}),
      inputDigest: kept[0]?.metadata?.annotations?.[DIGEST_ANNOTATION] ?? before.inputDigest,
      resolved: newest?.batching ? { image: newest.image, batching: newest.batching } : before.resolved,
      lineage: newest?.lineage ? [newest.lineage] : before.lineage,
      lastFailure,
      history: tookOver(before, traffic, generation, now),
    };
    return plan;
  };
  const unchanged = living.filter((deployment) => deployment === serving || !serving);

  if (problems.length > 0) return settle(stalled('InvalidSpec', problems.join('; ')), serving, unchanged);
  if ('reason' in model) return settle(waiting(model.reason, model.message), serving, unchanged);

  const store = observeStore(spec.store, observed.claim, namespace);
  if ('stalled' in store) return settle(stalled(store.stalled.reason, store.stalled.message), serving, unchanged);
  if ('waiting' in store) return settle(waiting(store.waiting.reason, store.waiting.message), serving, unchanged);
  if (!model.uri.startsWith(`${store.uri}/`)) {
    const message = `spec.store is ${store.uri}, but ModelExport ${model.entry.name} lies at ${model.uri}; both must use the same store.`;
    return settle(stalled('StoreMismatch', message), serving, unchanged);
  }

  const modelDigest = model.entry.digest;
  const digest = inputDigest('inferenceservice', spec, [{ kind: 'ModelExport', digest: modelDigest }]);
  const current = living.find((deployment) => deployment.metadata?.annotations?.[DIGEST_ANNOTATION] === digest);
  if (!current) {
    const revisionName = childName('inferenceservice', name, digest);
    if (observed.deployments.some((deployment) => nameOf(deployment) === revisionName)) {
      const message = `Waits until the former Deployment ${revisionName} is gone.`;
      return settle(progressing('ReplacingRevision', message), serving, serving ? [serving] : []);
    }
    const resources = withDefaults('serve', spec.runtime?.resources);
    const resolved: Revision = {
      image: spec.runtime?.image || options.trainerImage,
      modelDigest,
      batching: Batching.parse(spec.runtime?.batching ?? {}),
      lineage: model.entry,
      generation,
    };
    plan.create.push(
      revisionDeployment({
        name: revisionName,
        namespace,
        owner: name,
        ownerReference: ownerReference(object),
        digest,
        resolved,
        replicas,
        template: trainerPodTemplate(
          {
            component: 'inferenceservice',
            owner: name,
            labels: { [REVISION_LABEL]: revisionName },
            image: resolved.image,
            task: {
              kind: 'serve',
              name,
              model: { digest: modelDigest },
              batching: resolved.batching,
              port: PREDICTOR_PORT,
              maxBodyBytes: spec.request?.maxBodyBytes ?? 20_971_520,
              threads: threads(resources),
              drainSeconds: 30,
            },
            resources,
            store: store.claim,
            pod: spec.runtime?.pod,
          },
          'Always',
        ),
      }),
    );
    return settle(
      progressing('RevisionCreated', `Revision ${revisionName} starts.`),
      serving,
      serving ? [serving] : [],
    );
  }

  const takesOver = isReady(current, replicas);
  // Without an older one that answers, the first ready replica is better than none.
  const traffic = takesOver || !serving || (serving !== current && readyReplicas(serving) === 0) ? current : serving;
  const others =
    traffic === current && servingName === nameOf(current) ? [] : serving && serving !== current ? [serving] : [];
  const kept = [current, ...others];

  if (spec.suspend) return settle(suspended('spec.suspend is true; there are no replicas.'), traffic, kept);
  if (takesOver && traffic === current) {
    const message = `Revision ${nameOf(current)} has all traffic, ${replicas} of ${replicas} replicas are ready.`;
    if (servingName !== nameOf(current)) {
      plan.events.push({ type: 'Normal', reason: 'RevisionServing', message });
    }
    return settle(ready(replicas === 0 ? 'ScaledToZero' : 'Serving', message), traffic, kept);
  }
  const found = obstacleOf(observed, current);
  if (!found) return settle(rollingOut(current, replicas), traffic, kept);
  lastFailure = remember(before.lastFailure, found, now);
  if (isNews(before.lastFailure, found)) {
    plan.events.push({ type: 'Warning', reason: found.reason, message: found.message });
  }
  return settle((isTerminal(found) ? stalled : waiting)(found.reason, found.message), traffic, kept);
}

/** The history, with `traffic` as its newest entry if it has just been given the traffic. */
function tookOver(
  before: InferenceServiceStatus,
  traffic: V1Deployment | undefined,
  generation: number,
  now: Date,
): HistoryEntry[] | undefined {
  const digest = traffic?.metadata?.annotations?.[DIGEST_ANNOTATION];
  const history = before.history ?? [];
  if (!traffic || !digest || readyReplicas(traffic) === 0 || history[0]?.inputDigest === digest) return before.history;
  const made = traffic.metadata?.creationTimestamp;
  const entry: HistoryEntry = {
    generation: frozen(traffic).generation ?? generation,
    inputDigest: digest,
    artifactDigest: frozen(traffic).modelDigest,
    result: 'Succeeded',
    ...(made ? { startTime: timestamp(new Date(made)) } : {}),
    completionTime: timestamp(now),
  };
  return [entry, ...history].slice(0, 10);
}

function rollingOut(current: V1Deployment, replicas: number): Wanted[] {
  return progressing(
    'RollingOut',
    `Revision ${nameOf(current)} has ${readyReplicas(current)} of ${replicas} replicas ready.`,
  );
}

function obstacleOf({ object, pods, claim, events, now }: ObservedService, current: V1Deployment) {
  const ofRevision = pods.filter((pod) => pod.metadata?.labels?.[REVISION_LABEL] === nameOf(current));
  const found = revisionObstacle(current, { pods: ofRevision, claims: claim ? [claim] : [], events }, now);
  return found && asBefore(object.status?.lastFailure, found);
}
