/** What the gateway counts. Labels hold only names of watched objects, so strangers cannot make series. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export interface GatewayMetrics {
  registry: Registry;
  /** A request came in; call the answer once, when it has ended. `service` is undefined where the path names none that exists. */
  begin(service: { namespace: string; name: string } | undefined): (revision: string, code: number) => void;
  /** An attempt was given up for another, because of `reason`. */
  retried(service: { namespace: string; name: string }, reason: string): void;
}

/** What one service's requests amount to. */
interface Carried {
  labels: { namespace: string; service: string };
  inFlight: number;
  /** Requests in flight, summed over time until `at` (performance.now()). */
  seconds: number;
  at: number;
}

function advance(carried: Carried): void {
  const now = performance.now();
  carried.seconds += (carried.inFlight * (now - carried.at)) / 1000;
  carried.at = now;
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
  const carried = new Map<string, Carried>();
  new Gauge({
    name: 'fovea_gateway_requests_in_flight',
    help: 'Requests being received or answered, by service.',
    labelNames: ['namespace', 'service'],
    registers,
    collect() {
      for (const { labels, inFlight } of carried.values()) this.set(labels, inFlight);
    },
  });
  new Counter({
    name: 'fovea_gateway_request_seconds_total',
    help: 'Requests in flight, summed over time: its rate is how many there are on average, by service.',
    labelNames: ['namespace', 'service'],
    registers,
    collect() {
      this.reset();
      for (const entry of carried.values()) {
        advance(entry);
        this.inc(entry.labels, entry.seconds);
      }
    },
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
      const key = `${labels.namespace}/${labels.service}`;
      const entry = carried.get(key) ?? { labels, inFlight: 0, seconds: 0, at: started };
      carried.set(key, entry);
      advance(entry);
      entry.inFlight += 1;
      return (revision, code) => {
        advance(entry);
        entry.inFlight -= 1;
        requests.inc({ ...labels, revision, code });
        seconds.observe({ ...labels, revision }, (performance.now() - started) / 1000);
      };
    },
    retried({ namespace, name }, reason) {
      retries.inc({ namespace, service: name, reason });
    },
  };
}
