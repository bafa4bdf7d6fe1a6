/** What the reconcilers see: caches of the four kinds, of their children and of the claims, and who is woken by what. */
import type { V1Deployment, V1Job, V1PersistentVolumeClaim, V1Pod } from '@kubernetes/client-node';
import type { Dataset } from '../api/dataset.ts';
import type { InferenceService } from '../api/inferenceservice.ts';
import type { ModelExport } from '../api/modelexport.ts';
import { RESOURCES } from '../api/object.ts';
import type { Store } from '../api/store.ts';
import type { TrainingJob } from '../api/trainingjob.ts';
import type { Change, Indexer } from '../kube/cache.ts';
import type { Client } from '../kube/client.ts';
import { type Reflector, type ReflectorOptions, reflect } from '../kube/reflector.ts';
import { CLAIMS, DEPLOYMENTS, JOBS, type KubeObject, keyOf, PODS } from '../kube/resources.ts';
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
  const claim = { claim: named((object: KubeObject & { spec: { store?: Store } }) => claimName(object.spec.store)) };
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
  const claims = view<V1PersistentVolumeClaim & KubeObject>({
    resource: CLAIMS,
    onChange: ({ object }) => {
      wakeAll('dataset', datasets.by('claim', keyOf(object)));
      wakeAll('trainingjob', trainingJobs.by('claim', keyOf(object)));
      wakeAll('modelexport', modelExports.by('claim', keyOf(object)));
      wakeAll('inferenceservice', services.by('claim', keyOf(object)));
    },
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
