/**
 * The operator: watches the four kinds and brings the cluster to what they ask for. Configured by environment:
 *
 * - OPERATOR_NAMESPACE: where its Secret lies (default fovea-system; outside a pod: default)
 * - WATCH_NAMESPACES: comma-separated; empty: all
 * - POD_IP: address it listens on; absent outside a pod, then 127.0.0.1
 * - INTAKE_PORT, HEALTH_PORT: default 8443 and 8080
 * - FOVEA_TRAINER_IMAGE: image of the pods it makes (default fovea/trainer:dev)
 * - FOVEA_INTAKE_URL: where workers report (default its own Service; outside a pod: its own address)
 * - FOVEA_GATEWAY_URL: shown in InferenceService.status.url (default the gateway's Service)
 * - LOG_LEVEL: default info
 */
import { connect } from './kube/client.ts';
import { startController } from './kube/controller.ts';
import { loadConfig } from './kube/credentials.ts';
import { isConflict, isNotFound } from './kube/errors.ts';
import { createRecorder } from './kube/events.ts';
import { Queue } from './kube/queue.ts';
import { splitKey } from './kube/resources.ts';
import { createLogger, forReconcile } from './log.ts';
import { COMPONENTS, type Component } from './manifests/labels.ts';
import { reconcileInferenceService } from './reconcile/inferenceservice.ts';
import { createProgressBoard } from './reconcile/progress.ts';
import { type Hands, reconcileDataset, reconcileModelExport, reconcileTrainingJob } from './reconcile/run.ts';
import { openWorld } from './reconcile/world.ts';
import { operatorMetrics } from './web/metrics.ts';
import { startWeb } from './web/server.ts';

const env = process.env;
const log = createLogger({ program: 'operator', level: env.LOG_LEVEL });
const inPod = Boolean(env.POD_IP);
const address = env.POD_IP || '127.0.0.1';
const intakePort = Number(env.INTAKE_PORT || 8443);
const operatorNamespace = env.OPERATOR_NAMESPACE || (inPod ? 'fovea-system' : 'default');
const namespaces = (env.WATCH_NAMESPACES ?? '').split(',').filter((namespace) => namespace !== '');

const RECONCILERS: Record<Component, (hands: Hands, key: string) => Promise<undefined>> = {
  dataset: reconcileDataset,
  trainingjob: reconcileTrainingJob,
  modelexport: reconcileModelExport,
  inferenceservice: reconcileInferenceService,
};
const components = Object.keys(RECONCILERS) as Component[];

const intakeHost = inPod ? `fovea-operator.${operatorNamespace}.svc` : address;
const intakeUrl = env.FOVEA_INTAKE_URL || `https://${intakeHost}:${intakePort}`;

process.on('uncaughtException', (error) => {
  log.fatal({ error }, 'cannot go on');
  process.exit(1);
});

const metrics = operatorMetrics();
const client = await connect(loadConfig(), metrics.request);
const queues = Object.fromEntries(components.map((component) => [component, new Queue()])) as Record<Component, Queue>;
metrics.queues(queues);
const progress = createProgressBoard();
const recorder = createRecorder(client, 'fovea', (error) => log.warn({ error }, 'an event was not written'));
const world = openWorld({
  client,
  namespaces,
  wake: (component, key) => queues[component].add(key),
  onError: (resource, error) => {
    if (isNotFound(error)) log.warn({ resource }, 'the API server does not know this resource: kubectl apply -f crds/');
    else log.warn({ resource, error }, 'a list or watch failed and is tried again');
  },
  observe: { relist: metrics.relist, rewatch: metrics.rewatch },
});

const web = await startWeb({
  client,
  namespace: operatorNamespace,
  address,
  hosts: [new URL(intakeUrl).hostname],
  intakePort,
  healthPort: Number(env.HEALTH_PORT || 8080),
  ready: world.hasSynced,
  findPod: (namespace, name) => {
    const pod = world.pods.get(namespace, name);
    return pod && { uid: pod.metadata?.uid ?? '', labels: pod.metadata?.labels ?? {} };
  },
  onProgress: ({ namespace, podUid, labels }, report) => {
    const delay = progress.report(podUid, report);
    for (const component of components) {
      const name = labels[COMPONENTS[component].ownerLabel];
      if (name) queues[component].addAfter(`${namespace}/${name}`, delay);
    }
  },
  metrics,
  log,
});

const hands: Hands = {
  client,
  world,
  recorder,
  progress,
  options: () => ({
    trainerImage: env.FOVEA_TRAINER_IMAGE || 'fovea/trainer:dev',
    intake: { url: intakeUrl, ca: web.caPem },
    gatewayUrl: env.FOVEA_GATEWAY_URL || `http://fovea-gateway.${operatorNamespace}.svc:8080`,
  }),
};

await world.synced;
log.info({ namespaces: namespaces.length === 0 ? 'all' : namespaces, server: client.server }, 'caches are synced');

const controllers = components.map((component) =>
  startController({
    queue: queues[component],
    reconcile: (key) => RECONCILERS[component](hands, key),
    onError: (key, error) => {
      const line = forReconcile(log, { controller: component, ...splitKey(key) });
      // A conflict is the server's word that the cache is behind; the watch brings what is missing.
      if (isConflict(error)) line.debug({ error }, 'planned on stale data, planned again');
      else line.warn({ error }, 'reconcile failed and is tried again');
    },
    observe: (outcome, seconds) => metrics.reconcile(component, outcome, seconds),
  }),
);

let stopping = false;
async function stop(signal: NodeJS.Signals): Promise<void> {
  if (stopping) process.exit(1);
  stopping = true;
  log.info({ signal }, 'stops');
  await Promise.all(controllers.map((controller) => controller.stop()));
  await Promise.all([world.stop(), web.close(), recorder.flush()]);
  await client.close();
}
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
