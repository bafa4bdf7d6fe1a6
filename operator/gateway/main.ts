/**
 * The gateway: where requests for all InferenceServices come in. Stateless; any number of replicas. Configured by environment:
 *
 * - PORT: default 8080
 * - POD_IP: address it listens on (default 127.0.0.1)
 * - WATCH_NAMESPACES: comma-separated; empty: all
 * - LOG_LEVEL: default info
 */
import { RESOURCES } from '../api/object.ts';
import { connect } from '../kube/client.ts';
import { loadConfig } from '../kube/credentials.ts';
import { reflect } from '../kube/reflector.ts';
import { type KubeObject, PODS } from '../kube/resources.ts';
import { createLogger } from '../log.ts';
import { COMPONENTS } from '../manifests/labels.ts';
import { gatewayMetrics } from './metrics.ts';
import type { WatchedPod, WatchedService } from './routes.ts';
import { startGateway } from './server.ts';
import { routingTable } from './table.ts';

/** Milliseconds for which requests are still taken after SIGTERM, and after that for those in progress. */
const NOTICE = 3000;
const GRACE = 25_000;

const { env } = process;
const log = createLogger({ program: 'gateway', level: env.LOG_LEVEL });
const namespaces = (env.WATCH_NAMESPACES ?? '').split(',').filter((namespace) => namespace !== '');

const client = await connect(loadConfig());
const metrics = gatewayMetrics();
const table = routingTable();
const onError = (error: unknown) => log.warn({ error }, 'a list or watch failed and is tried again');

const services = reflect<KubeObject & WatchedService>(client, {
  resource: RESOURCES.inferenceServices,
  namespaces,
  onError,
  onChange: ({ type, object }) => {
    const { namespace, name } = object.metadata;
    table.setService(namespace, name, type === 'set' ? object : undefined);
  },
});
const pods = reflect<KubeObject & WatchedPod>(client, {
  resource: PODS,
  select: { labelSelector: COMPONENTS.inferenceservice.ownerLabel },
  namespaces,
  onError,
  onChange: ({ type, object }) => table.setPod(object, type === 'delete'),
});

const gateway = await startGateway({
  table,
  metrics,
  address: env.POD_IP || '127.0.0.1',
  port: Number(env.PORT || 8080),
  ready: () => services.hasSynced() && pods.hasSynced(),
});
log.info({ port: gateway.port, namespaces: namespaces.length === 0 ? 'all' : namespaces }, 'listens');

let stopping = false;
async function stop(signal: NodeJS.Signals): Promise<void> {
  if (stopping) process.exit(1);
  stopping = true;
  log.info({ signal }, 'drains');
  await gateway.drain(NOTICE, GRACE);
  await Promise.all([services.stop(), pods.stop(), table.close()]);
  await client.close();
}
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
