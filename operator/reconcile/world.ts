/** What the reconcilers see: caches of the four kinds, of their children and of what is told of these, and who is woken by what. */
import type { CoreV1Event, V1Deployment, V1Job, V1PersistentVolumeClaim, V1Pod } from '@kubernetes/client-node';
import type { Dataset } from '../api/dataset.ts';
import type { InferenceService } from '../api/inferenceservice.ts';
import type { ModelExport } from '../api/modelexport.ts';
import { RESOURCES } from '../api/object.ts';
import type { Store } from '../api/store.ts';
import type { TrainingJob } from '../api/trainingjob.ts';
import type { Change, Indexer } from '../kube/cache.ts';
import type { Client } from '../kube/client.ts';
import { type Reflector, type ReflectorOptions, reflect } from '../kube/reflector.ts';
import { CLAIMS, DEPLOYMENTS, EVENTS, JOBS, type KubeObject, keyOf, PODS, splitKey } from '../kube/resources.ts';
import { COMPONENTS, type Component, MANAGED_BY, MANAGER } from '../manifests/labels.ts';
import { claimName } from '../plan/store.ts';

/** One view of a resource in all watched namespaces. */
export interface View<T> {
  get(namespace: string, name: string): T | undefined;
  /** Objects whose index has the value. */
  by(index: string, value: string): T[];
  list(): T[];
}

export interface World {
  datasets: View<Dataset>;
  trainingJobs: View<TrainingJob>;
  modelExports: View<ModelExport>;
  services: View<InferenceService>;
  /** Children are found by the index `owner`, see `ownerKey`. */
  jobs: View<V1Job>;
  pods: View<V1Pod>;
  deployments: View<V1Deployment>;
  claims: View<V1PersistentVolumeClaim>;
  /** What is told of claims, and of Jobs that cannot make pods, which say so nowhere else. */
  eventsAbout(objects: readonly KubeObject[]): CoreV1Event[];
  /** Wakes every object there is: whoever begins to reconcile has heard of none. */
  wakeAll(): void;
  hasSynced(): boolean;
  synced: Promise<void>;
  stop(): Promise<void>;
}

/** Called with the object that has to be looked at. */
export type Wake = (component: Component, key: string) => void;

export interface WorldOptions {
  client: Client;
  /** Empty: all. */
  namespaces: string[];
  wake: Wake;
  onError: (resource: string, error: unknown) => void;
  observe?: ReflectorOptions<KubeObject>['observe'];
}

/** Names of the claims that the pods of an object mount, without doubles. */
export function claimsOf({ store, source }: Mounting): string[] {
  return [...new Set([claimName(store), ...(source?.pvc ? [source.pvc.claimName] : [])])];
}

interface Mounting {
  store?: Store;
  /** A Dataset's; of another kind it names no claim. */
  source?: { pvc?: { claimName: string } };
}

/** Of an Event only what is read is kept: there may be many of them. */
function pruneEvent(event: CoreV1Event & KubeObject): void {
  const { name, namespace, uid, resourceVersion, creationTimestamp } = event.metadata;
  event.metadata = { name, namespace, uid, resourceVersion, creationTimestamp };
  for (const field of [
    'source',
    'reportingComponent',
    'reportingInstance',
    'firstTimestamp',
    'action',
    'related',
  ] as const) {
    delete event[field];
  }
}

export const ownerKey = (component: Component, namespace: string, name: string) => `${component}/${namespace}/${name}`;

/** The object that a child works for, by its labels. */
function ownerOf(child: KubeObject): { component: Component; key: string } | undefined {
  const labels = child.metadata?.labels ?? {};
  for (const [component, { ownerLabel }] of Object.entries(COMPONENTS)) {
    const name = labels[ownerLabel];
    if (name) return { component: component as Component, key: `${child.metadata?.namespace}/${name}` };
  }
  return undefined;
}

const byOwner = {
  owner: (child: KubeObject) => {
    const owner = ownerOf(child);
    return owner ? [`${owner.component}/${owner.key}`] : [];
  },
};

export function openWorld({ client, namespaces, wake, onError, observe }: WorldOptions): World {
  const reflectors: Omit<Reflector<KubeObject>, 'cache'>[] = [];

  function view<T extends KubeObject>(
    options: Omit<ReflectorOptions<T>, 'onChange' | 'onError'> & { onChange: (change: Change<T>) => void },
  ): View<T> {
    const reflector = reflect<T>(client, {
      ...options,
      namespaces,
      onError: (error) => onError(options.resource.plural, error),
      observe,
    });
    reflectors.push(reflector);
    return {
      get: (namespace, name) => reflector.cache.get(`${namespace}/${name}`),
      by: (index, value) => reflector.cache.by(index, value),
      list: () => reflector.cache.list(),
    };
  }

  const wakeAll = (component: Component, objects: KubeObject[]) => {
    for (const object of objects) wake(component, keyOf(object));
  };
  const child = ({ object }: Change<KubeObject>) => {
    const owner = ownerOf(object);
    if (owner) wake(owner.component, owner.key);
  };
  /** Index of objects by the key of what they name. */
  const named =
    <T extends KubeObject>(name: (object: T) => string | undefined): Indexer<T> =>
    (object) => {
      const found = name(object);
      return found ? [`${object.metadata?.namespace}/${found}`] : [];
    };
  const claim = {
    claim: ({ metadata, spec }: KubeObject & { spec: object }) =>
      claimsOf(spec as Mounting).map((name) => `${metadata?.namespace}/${name}`),
  };
  const managed = { labelSelector: `${MANAGED_BY}=${MANAGER}` };

  const datasets = view<Dataset & KubeObject>({
    resource: RESOURCES.datasets,
    indexers: claim,
    onChange: ({ object }) => {
      wake('dataset', keyOf(object));
      wakeAll('trainingjob', trainingJobs.by('dataset', keyOf(object)));
      wakeAll('modelexport', modelExports.by('dataset', keyOf(object)));
    },
  });
  const trainingJobs: View<TrainingJob & KubeObject> = view<TrainingJob & KubeObject>({
    resource: RESOURCES.trainingJobs,
    indexers: { ...claim, dataset: named((job) => job.spec.datasetRef.name) },
    onChange: ({ object }) => {
      wake('trainingjob', keyOf(object));
      wakeAll('modelexport', modelExports.by('trainingjob', keyOf(object)));
    },
  });
  const modelExports: View<ModelExport & KubeObject> = view<ModelExport & KubeObject>({
    resource: RESOURCES.modelExports,
    indexers: {
      ...claim,
      trainingjob: named((e) => e.spec.source.trainingJob?.name),
      dataset: named((e) => e.spec.verify?.datasetRef?.name),
    },
    onChange: ({ object }) => {
      wake('modelexport', keyOf(object));
      wakeAll('inferenceservice', services.by('export', keyOf(object)));
    },
  });
  const services: View<InferenceService & KubeObject> = view<InferenceService & KubeObject>({
    resource: RESOURCES.inferenceServices,
    indexers: { ...claim, export: named((service) => service.spec.model.export?.name) },
    onChange: ({ object }) => wake('inferenceservice', keyOf(object)),
  });
  const children = { select: managed, indexers: byOwner, onChange: child };
  const jobs = view<V1Job & KubeObject>({ resource: JOBS, ...children });
  const pods = view<V1Pod & KubeObject>({ resource: PODS, ...children });
  const deployments = view<V1Deployment & KubeObject>({ resource: DEPLOYMENTS, ...children });
  const wakeUsers = (claimKey: string) => {
    wakeAll('dataset', datasets.by('claim', claimKey));
    wakeAll('trainingjob', trainingJobs.by('claim', claimKey));
    wakeAll('modelexport', modelExports.by('claim', claimKey));
    wakeAll('inferenceservice', services.by('claim', claimKey));
  };
  const claims = view<V1PersistentVolumeClaim & KubeObject>({
    resource: CLAIMS,
    onChange: ({ object }) => wakeUsers(keyOf(object)),
  });
  const told = (fieldSelector: string, onEvent: (key: string) => void) =>
    view<CoreV1Event & KubeObject>({
      resource: EVENTS,
      select: { fieldSelector },
      indexers: { about: ({ involvedObject }) => (involvedObject.uid ? [involvedObject.uid] : []) },
      prune: pruneEvent,
      onChange: ({ object: { involvedObject } }) => onEvent(`${involvedObject.namespace}/${involvedObject.name}`),
    });
  const toldOfClaims = told('involvedObject.kind=PersistentVolumeClaim', wakeUsers);
  const toldOfJobs = told('involvedObject.kind=Job,reason=FailedCreate', (key) => {
    const { namespace, name } = splitKey(key);
    const job = jobs.get(namespace, name);
    const owner = job && ownerOf(job as KubeObject);
    if (owner) wake(owner.component, owner.key);
  });

  return {
    datasets,
    trainingJobs,
    modelExports,
    services,
    jobs,
    pods,
    deployments,
    claims,
    eventsAbout: (objects) =>
      objects.flatMap(({ metadata }) =>
        [toldOfClaims, toldOfJobs].flatMap((events) => events.by('about', metadata?.uid ?? '')),
      ),
    wakeAll: () => {
      wakeAll('dataset', datasets.list());
      wakeAll('trainingjob', trainingJobs.list());
      wakeAll('modelexport', modelExports.list());
      wakeAll('inferenceservice', services.list());
    },
    hasSynced: () => reflectors.every((reflector) => reflector.hasSynced()),
    synced: Promise.all(reflectors.map((reflector) => reflector.synced)).then(() => undefined),
    stop: async () => {
      await Promise.all(reflectors.map((reflector) => reflector.stop()));
    },
  };
}
