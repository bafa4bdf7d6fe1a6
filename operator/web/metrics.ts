/** The operator's metrics, and the hooks through which the kube layer and the controllers raise them. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

interface QueueGauge {
  depth(): number;
  /** Seconds the longest waiting key has waited. */
  age(): number;
}

export interface OperatorMetrics {
  registry: Registry;
  request(verb: string, resource: string, code: number, seconds: number): void;
  relist(resource: string): void;
  rewatch(resource: string): void;
  reconcile(controller: string, outcome: string, seconds: number): void;
  /** `queues` is asked at each scrape. */
  queues(queues: () => Record<string, QueueGauge>): void;
  /** `leads` is asked at each scrape. */
  leader(leads: () => boolean): void;
}

export function operatorMetrics(): OperatorMetrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const requests = new Counter({
    name: 'fovea_api_requests_total',
    help: 'Requests to the API server; code 0 is no answer.',
    labelNames: ['verb', 'resource', 'code'],
    registers,
  });
  const requestSeconds = new Histogram({
    name: 'fovea_api_request_duration_seconds',
    help: 'Time to the headers of the API server’s answer.',
    labelNames: ['verb'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  });
  const relists = new Counter({
    name: 'fovea_lists_total',
    help: 'Whole lists read into caches.',
    labelNames: ['resource'],
    registers,
  });
  const rewatches = new Counter({
    name: 'fovea_watches_total',
    help: 'Watches started.',
    labelNames: ['resource'],
    registers,
  });
  const reconciles = new Counter({
    name: 'fovea_reconciles_total',
    help: 'Reconciles by outcome.',
    labelNames: ['controller', 'outcome'],
    registers,
  });
  const reconcileSeconds = new Histogram({
    name: 'fovea_reconcile_duration_seconds',
    help: 'Duration of reconciles.',
    labelNames: ['controller'],
    buckets: [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30],
    registers,
  });
  return {
    registry,
    request(verb, resource, code, seconds) {
      requests.inc({ verb, resource, code });
      requestSeconds.observe({ verb }, seconds);
    },
    relist: (resource) => relists.inc({ resource }),
    rewatch: (resource) => rewatches.inc({ resource }),
    reconcile(controller, outcome, seconds) {
      reconciles.inc({ controller, outcome });
      reconcileSeconds.observe({ controller }, seconds);
    },
    queues(queues) {
      const gauge = (name: string, help: string, value: (queue: QueueGauge) => number) =>
        new Gauge({
          name,
          help,
          labelNames: ['controller'],
          registers,
          collect() {
            this.reset();
            for (const [controller, queue] of Object.entries(queues())) this.set({ controller }, value(queue));
          },
        });
      gauge('fovea_queue_depth', 'Keys that wait.', (queue) => queue.depth());
      gauge('fovea_queue_age_seconds', 'How long the longest waiting key has waited.', (queue) => queue.age());
    },
    leader(leads) {
      new Gauge({
        name: 'fovea_leader',
        help: '1 in the operator that holds the Lease and reconciles, else 0.',
        registers,
        collect() {
          this.set(Number(leads()));
        },
      });
    },
  };
}
