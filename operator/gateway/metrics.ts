/** What the gateway counts. Labels hold only names of watched objects, so strangers cannot make series. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export interface GatewayMetrics {
  registry: Registry;
  /** A request came in; call the answer once, when it has ended. `service` is undefined where the path names none that exists. */
  begin(service: { namespace: string; name: string } | undefined): (revision: string, code: number) => void;
  /** An attempt was given up for another, because of `reason`. */
  retried(service: { namespace: string; name: string }, reason: string): void;
}

export function gatewayMetrics(): GatewayMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const requests = new Counter({
    name: 'fovea_gateway_requests_total',
    help: 'Requests answered, by service, revision that answered (empty: the gateway itself) and status code (499: the client left).',
    labelNames: ['namespace', 'service', 'revision', 'code'],
    registers,
  });
  const inFlight = new Gauge({
    name: 'fovea_gateway_requests_in_flight',
    help: 'Requests being received or answered, by service.',
    labelNames: ['namespace', 'service'],
    registers,
  });
  const seconds = new Histogram({
    name: 'fovea_gateway_request_duration_seconds',
    help: 'From the head of a request to the end of its answer, by service and revision.',
    labelNames: ['namespace', 'service', 'revision'],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30],
    registers,
  });
  const retries = new Counter({
    name: 'fovea_gateway_retries_total',
    help: 'Attempts given up for another pod, by service and reason.',
    labelNames: ['namespace', 'service', 'reason'],
    registers,
  });

  return {
    registry,
    begin(service) {
      const started = performance.now();
      const labels = { namespace: service?.namespace ?? '', service: service?.name ?? '' };
      inFlight.inc(labels);
      return (revision, code) => {
        inFlight.dec(labels);
        requests.inc({ ...labels, revision, code });
        seconds.observe({ ...labels, revision }, (performance.now() - started) / 1000);
      };
    },
    retried({ namespace, name }, reason) {
      retries.inc({ namespace, service: name, reason });
    },
  };
}
