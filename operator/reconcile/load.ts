/**
 * What services carry, measured: the requests that the gateway's pods have in flight, and those that wait in the predictors.
 * Read from their metrics while somebody asks; nothing is kept beyond the process, on purpose.
 *
 * A request that waits in a predictor is in flight at the gateway as well, unless it came past it. So the greater of the two sums
 * is what is pending, and no request is counted twice.
 */
import type { V1Pod } from '@kubernetes/client-node';
import { request } from 'undici';
import { PREDICTOR_PORT } from '../../trainer-image/contract.ts';
import type { Client } from '../kube/client.ts';
import { type Reflector, reflect } from '../kube/reflector.ts';
import { type KubeObject, PODS } from '../kube/resources.ts';
import { GATEWAY_SELECTOR } from '../manifests/labels.ts';
import type { LoadSample } from '../plan/scaling.ts';

/** Seconds after which a service is measured again. */
export const LOAD_SECONDS = 2;
/** Milliseconds for which what was read stays good. */
const FRESH = 1000;
/** Milliseconds for a pod's metrics to come; a pod that is gone must not hold up the others. */
const TIMEOUT = 1000;
/** Bytes of metrics that are read of a pod. */
const LONGEST = 8 * 2 ** 20;
const GATEWAY_PORT = 8080;

interface Reading {
  at: number;
  text: string | undefined;
}

interface Measured {
  /** Of the service: one that was made again under its name starts anew. */
  uid: string;
  samples: LoadSample[];
  /** Request seconds of each gateway pod, by its uid. */
  totals: Map<string, { at: number; seconds: number }>;
}

export interface LoadBoard {
  /**
   * Measures a service and returns the samples of the last `seconds`, and the one before them, oldest first.
   * @param predictors its pods, ready or not
   */
  measure(
    service: { namespace: string; name: string; uid: string },
    predictors: readonly V1Pod[],
    seconds: number,
  ): Promise<LoadSample[]>;
  /** The service is not measured any more. */
  forget(key: string): void;
  stop(): Promise<void>;
}

export interface LoadBoardOptions {
  client: Client;
  /** Where the gateway runs. */
  namespace: string;
  /** Called when the gateway's pods could not be listed or watched, and it is tried again. */
  onError: (error: unknown) => void;
  /** Milliseconds on a clock that only goes forward. Default: performance.now. */
  now?: () => number;
}

export function createLoadBoard({
  client,
  namespace,
  onError,
  now = () => performance.now(),
}: LoadBoardOptions): LoadBoard {
  const measured = new Map<string, Measured>();
  const readings = new Map<string, { at: number; reading: Promise<Reading> }>();
  let gateways: Reflector<V1Pod & KubeObject> | undefined;

  /** The gateway's pods, watched from the first time they are needed; undefined while they are not known. */
  function gatewayPods(): V1Pod[] | undefined {
    gateways ??= reflect<V1Pod & KubeObject>(client, {
      resource: PODS,
      select: { labelSelector: GATEWAY_SELECTOR },
      namespaces: [namespace],
      onError,
    });
    return gateways.hasSynced() ? gateways.cache.list() : undefined;
  }

  function metricsOf(origin: string): Promise<Reading> {
    const asked = now();
    const known = readings.get(origin);
    if (known && asked - known.at < FRESH) return known.reading;
    const reading = readMetrics(origin).then((text) => ({ at: now(), text }));
    readings.set(origin, { at: asked, reading });
    for (const [other, { at }] of readings) if (asked - at > 60 * FRESH) readings.delete(other);
    return reading;
  }

  return {
    async measure({ namespace: of, name, uid }, predictors, seconds) {
      const key = `${of}/${name}`;
      const known = measured.get(key);
      const entry: Measured = known?.uid === uid ? known : { uid, samples: [], totals: new Map() };
      measured.set(key, entry);
      const latest = entry.samples.at(-1);
      if (latest && now() - latest.at < FRESH) return entry.samples;

      const selector = `namespace="${of}",service="${name}"`;
      const pods = gatewayPods();
      const carrying = pods?.filter(isReady) ?? [];
      const atGateways = carrying.map(async (pod) => {
        const { at, text } = await metricsOf(originOf(pod, portNamed(pod, 'http') ?? GATEWAY_PORT));
        if (text === undefined) return undefined;
        const present = sumOf(text, 'fovea_gateway_requests_in_flight', selector);
        const total = { at, seconds: sumOf(text, 'fovea_gateway_request_seconds_total', selector) };
        const before = entry.totals.get(pod.metadata?.uid ?? '');
        entry.totals.set(pod.metadata?.uid ?? '', total);
        const passed = before && (total.at - before.at) / 1000;
        // Over the time since the last reading, where there was one of this pod and it counts from the same start.
        return passed && total.seconds >= before.seconds ? (total.seconds - before.seconds) / passed : present;
      });
      const inPredictors = predictors.filter(isReady).map(async (pod) => {
        const { text } = await metricsOf(originOf(pod, PREDICTOR_PORT));
        return text === undefined ? undefined : sumOf(text, 'nv_inference_pending_request_count', '');
      });
      const [gateway, waiting] = await Promise.all([Promise.all(atGateways), Promise.all(inPredictors)]);
      const sum = (values: (number | undefined)[]) => values.reduce<number>((total, value) => total + (value ?? 0), 0);
      const sample = {
        at: now(),
        pending: Math.max(sum(gateway), sum(waiting)),
        // Where there is a gateway and none of its pods is ready, requests are held up before they can be counted.
        complete: ![...gateway, ...waiting].includes(undefined) && (carrying.length > 0 || pods?.length === 0),
      };
      const uids = new Set(carrying.map((pod) => pod.metadata?.uid));
      for (const uid of entry.totals.keys()) if (!uids.has(uid)) entry.totals.delete(uid);
      entry.samples = sinceBefore([...entry.samples, sample], sample.at - seconds * 1000);
      return entry.samples;
    },
    forget: (key) => void measured.delete(key),
    stop: async () => gateways?.stop(),
  };
}

/** The samples from `since` on, and the last one before. */
function sinceBefore(samples: LoadSample[], since: number): LoadSample[] {
  const first = samples.findLastIndex(({ at }) => at <= since);
  return first > 0 ? samples.slice(first) : samples;
}

const isReady = ({ metadata, status }: V1Pod) =>
  metadata?.deletionTimestamp === undefined &&
  status?.podIP !== undefined &&
  (status.conditions ?? []).some(({ type, status: is }) => type === 'Ready' && is === 'True');

function originOf({ status }: V1Pod, port: number): string {
  const address = status?.podIP ?? '';
  return `http://${address.includes(':') ? `[${address}]` : address}:${port}`;
}

const portNamed = ({ spec }: V1Pod, name: string) =>
  spec?.containers.flatMap(({ ports = [] }) => ports).find((port) => port.name === name)?.containerPort;

/** Undefined where they cannot be had. */
async function readMetrics(origin: string): Promise<string | undefined> {
  try {
    const { statusCode, body } = await request(`${origin}/metrics`, { signal: AbortSignal.timeout(TIMEOUT) });
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of body) {
      length += (chunk as Buffer).length;
      if (length > LONGEST) return undefined;
      chunks.push(chunk as Buffer);
    }
    return statusCode === 200 ? Buffer.concat(chunks).toString() : undefined;
  } catch {
    // Gone, or not answering: it is read again the next time.
    return undefined;
  }
}

/**
 * Sum of the samples of a metric in Prometheus' text format, of those whose labels contain `labels` as it is written there.
 * (https://prometheus.io/docs/instrumenting/exposition_formats/)
 */
function sumOf(text: string, metric: string, labels: string): number {
  let sum = 0;
  for (const line of text.split('\n')) {
    if (!line.startsWith(metric) || !line.includes(labels)) continue;
    const rest = line.slice(metric.length);
    const value = Number(
      rest
        .slice(rest.lastIndexOf('}') + 1)
        .trim()
        .split(' ')[0],
    );
    if ((rest[0] === '{' || rest[0] === ' ') && Number.isFinite(value)) sum += value;
  }
  return sum;
}
