/**
 * The operator: watches the four kinds and brings the cluster to what they ask for. Configured by environment:
 *
 * - OPERATOR_NAMESPACE: where its Secret lies (default fovea-system; outside a pod: default)
 * - WATCH_NAMESPACES: comma-separated; empty: all
 * - POD_NAME: how it is called where it leads (default: the host's name)
 * - POD_IP: address it listens on; absent outside a pod, then 127.0.0.1
 * - INTAKE_PORT, HEALTH_PORT: default 8443 and 8080
 * - FOVEA_TRAINER_IMAGE: image of the pods it makes (default fovea/trainer:dev)
 * - FOVEA_INTAKE_URL: where workers report (default its own Service; outside a pod: its own address)
 * - FOVEA_GATEWAY_URL: shown in InferenceService.status.url (default the gateway's Service)
 * - LOG_LEVEL: default info
 *
 * Of several, one leads and reconciles; the others keep their caches, answer what they can, and take over.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { hostname } from 'node:os';
import { connect } from './kube/client.ts';
import { startController } from './kube/controller.ts';
import { loadConfig } from './kube/credentials.ts';
import { isConflict, isNotFound } from './kube/errors.ts';
import { createRecorder } from './kube/events.ts';
import { type Election, elect } from './kube/leader.ts';
import { Queue } from './kube/queue.ts';
import type { Term } from './kube/term.ts';
import { createLogger, inReconcile } from './log.ts';
import { COMPONENTS, type Component } from './manifests/labels.ts';
import { reconcileInferenceService } from './reconcile/inferenceservice.ts';
import { createLoadBoard } from './reconcile/load.ts';
import { createProgressBoard } from './reconcile/progress.ts';
import { seatOf } from './reconcile/ring.ts';
import { type Hands, reconcileDataset, reconcileModelExport, reconcileTrainingJob } from './reconcile/run.ts';
import { openWorld, ownerKey } from './reconcile/world.ts';
import { forwarder } from './web/forward.ts';
import { operatorMetrics } from './web/metrics.ts';
import { createRingDesk } from './web/ring.ts';
import { startWeb } from './web/server.ts';

const env = process.env;
const identity = `${env.POD_NAME || hostname()}_${randomBytes(4).toString('hex')}`;
const log = createLogger({ program: 'operator', level: env.LOG_LEVEL });
const inPod = Boolean(env.POD_IP);
const address = env.POD_IP || '127.0.0.1';
const intakePort = Number(env.INTAKE_PORT || 8443);
const operatorNamespace = env.OPERATOR_NAMESPACE || (inPod ? 'fovea-system' : 'default');
const namespaces = (env.WATCH_NAMESPACES ?? '').split(',').filter((namespace) => namespace !== '');

const RECONCILERS: Record<
  Component,
  (hands: Hands, key: string) => Promise<{ requeueAfterSeconds: number } | undefined>
> = {
  dataset: reconcileDataset,
  trainingjob: reconcileTrainingJob,
  modelexport: reconcileModelExport,
  inferenceservice: reconcileInferenceService,
};
/** On the Lease: where its holder's intake is. */
const INTAKE_ANNOTATION = 'fovea.dev/intake';
const components = Object.keys(RECONCILERS) as Component[];

const intakeHost = inPod ? `fovea-operator.${operatorNamespace}.svc` : address;
const intakeUrl = env.FOVEA_INTAKE_URL || `https://${intakeHost}:${intakePort}`;

/** Of the present term; absent while another leads: then nobody works keys off, and a new term begins with all there are. */
let queues: Record<Component, Queue> | undefined;

/** Absent until the caches are synced: who does not know what is there does not stand for election. */
let election: Election | undefined;

process.on('uncaughtException', (error) => {
  log.fatal({ error }, 'cannot go on');
  process.exit(1);
});

const metrics = operatorMetrics();
const client = await connect(loadConfig(), {
  userAgent: `fovea-operator (${identity})`,
  observe: (verb, resource, code, seconds) => {
    metrics.request(verb, resource, code, seconds);
    log.debug({ verb, resource, code, seconds }, 'request');
  },
});
metrics.queues(() => queues ?? {});
metrics.leader(() => election?.leads() ?? false);
const progress = createProgressBoard();
const load = createLoadBoard({
  client,
  namespace: operatorNamespace,
  onError: (error) => log.warn({ error }, 'the gateway’s pods cannot be watched, and it is tried again'),
});
const rings = createRingDesk({
  seatOf: (pod) => seatOf(world, pod),
  onJoin: (key) => queues?.trainingjob.add(key),
});
const world = openWorld({
  client,
  namespaces,
  wake: (component, key) => {
    queues?.[component].add(key);
    if (component === 'trainingjob') rings.look(key);
  },
  onError: (resource, error) => {
    if (isNotFound(error)) log.warn({ resource }, 'the API server does not know this resource: kubectl apply -f crds/');
    else log.warn({ resource, error }, 'a list or watch failed and is tried again');
  },
  observe: { relist: metrics.relist, rewatch: metrics.rewatch },
});

const leaders = forwarder({
  leader: () => {
    const leader = election?.leader();
    return leader?.identity === identity ? undefined : leader?.annotations[INTAKE_ANNOTATION];
  },
  ca: () => web.caPem,
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
    for (const component of components) {
      const name = labels[COMPONENTS[component].ownerLabel];
      if (!name) continue;
      const delay = progress.report(ownerKey(component, namespace, name), podUid, report);
      queues?.[component].addAfter(`${namespace}/${name}`, delay);
    }
  },
  rings,
  leading: () => election?.leads() ?? false,
  forward: leaders.forward,
  metrics,
  log,
});

/** Reconciles until the term winds up. Everything is looked at once: what others have left is not known. */
async function lead(term: Term): Promise<void> {
  log.info({ identity }, 'leads');
  const recorder = createRecorder(client.during(term), 'fovea', (error) => {
    if (!term.signal.aborted) log.warn({ error }, 'an event was not written');
  });
  const hands: Hands = {
    client: client.during(term),
    world,
    recorder,
    progress,
    joined: rings.joined,
    load,
    options: () => ({
      trainerImage: env.FOVEA_TRAINER_IMAGE || 'fovea/trainer:dev',
      intake: { url: intakeUrl, ca: web.caPem },
      gatewayUrl: env.FOVEA_GATEWAY_URL || `http://fovea-gateway.${operatorNamespace}.svc:8080`,
    }),
  };
  const ours = Object.fromEntries(components.map((component) => [component, new Queue()])) as Record<Component, Queue>;
  queues = ours;
  world.wakeAll();
  const controllers = components.map((component) =>
    startController({
      queue: ours[component],
      reconcile: (key) => RECONCILERS[component](hands, key),
      around: (key, reconcile) => inReconcile({ controller: component, object: key }, reconcile),
      onError: (_key, error) => {
        if (term.signal.aborted) return;
        // A conflict is the server's word that the cache is behind; the watch brings what is missing.
        if (isConflict(error)) log.debug({ error }, 'planned on stale data, planned again');
        else log.warn({ error }, 'reconcile failed and is tried again');
      },
      observe: (outcome, seconds) => {
        metrics.reconcile(component, outcome, seconds);
        log.debug({ outcome, seconds }, 'reconciled');
      },
    }),
  );
  if (!term.windingUp.aborted) await once(term.windingUp, 'abort');
  await Promise.all(controllers.map((controller) => controller.stop()));
  queues = undefined;
  await recorder.flush();
  log.info({ identity }, 'leads no longer');
}

await world.synced;
log.info({ namespaces: namespaces.length === 0 ? 'all' : namespaces, server: client.server }, 'caches are synced');

election = elect({
  client,
  namespace: operatorNamespace,
  name: 'fovea-operator',
  identity,
  annotations: { [INTAKE_ANNOTATION]: `https://${address.includes(':') ? `[${address}]` : address}:${web.intakePort}` },
  lead,
  onError: (error) => log.warn({ error }, 'the Lease could not be read or written'),
});

let stopping = false;
async function stop(signal: NodeJS.Signals): Promise<void> {
  if (stopping) process.exit(1);
  stopping = true;
  log.info({ signal }, 'stops');
  await election?.stop();
  await Promise.all([world.stop(), load.stop(), web.close(), leaders.close()]);
  await client.close();
}
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
