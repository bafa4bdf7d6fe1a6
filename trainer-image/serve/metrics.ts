/**
 * Metrics under the names and labels of Triton (https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md),
 * so that dashboards and autoscaling need not know which runtime serves. Durations are sums in microseconds.
 */
import { Counter, Gauge, Registry } from 'prom-client';
import type { BatchObserver } from './batcher.ts';
import { VERSION } from './protocol.ts';

/** Why a request failed, as Triton tells them apart: refused by a full queue, left by its sender, failed in the network. */
export type FailureReason = 'REJECTED' | 'CANCELED' | 'BACKEND';

export interface Metrics extends BatchObserver {
  succeeded(milliseconds: number): void;
  failed(reason: FailureReason): void;
  registry: Registry;
}

export function createMetrics(model: string): Metrics {
  const registry = new Registry();
  const labels = { model, version: VERSION };
  const counter = (name: string, help: string) => {
    const metric = new Counter({ name, help, labelNames: ['model', 'version'], registers: [registry] });
    // A counter that exists from the start as 0 can be rated from the first request on.
    metric.inc(labels, 0);
    return (value = 1) => metric.inc(labels, value);
  };
  const duration = (name: string, help: string) => {
    const add = counter(`nv_inference_${name}_duration_us`, help);
    return (milliseconds: number) => add(Math.round(milliseconds * 1000));
  };

  const success = counter('nv_inference_request_success', 'Number of successful inference requests');
  const failure = new Counter({
    name: 'nv_inference_request_failure',
    help: 'Number of failed inference requests',
    labelNames: ['model', 'version', 'reason'],
    registers: [registry],
  });
  for (const reason of ['REJECTED', 'CANCELED', 'BACKEND'] satisfies FailureReason[]) {
    failure.inc({ ...labels, reason }, 0);
  }
  const inferences = counter('nv_inference_count', 'Number of inferences performed: a batch of n counts n');
  const executions = counter('nv_inference_exec_count', 'Number of batches run');
  const request = duration('request', 'Cumulative time of requests from end to end');
  const queue = duration('queue', 'Cumulative time requests waited to be run');
  const computeInput = duration('compute_input', 'Cumulative time of preparing inputs');
  const computeInfer = duration('compute_infer', 'Cumulative time of running the network');
  const computeOutput = duration('compute_output', 'Cumulative time of handing out outputs');
  const pending = new Gauge({
    name: 'nv_inference_pending_request_count',
    help: 'Number of requests that wait to be run',
    labelNames: ['model', 'version'],
    registers: [registry],
  });
  pending.set(labels, 0);

  return {
    registry,
    succeeded(milliseconds) {
      success();
      request(milliseconds);
    },
    failed: (reason) => failure.inc({ ...labels, reason }),
    pending: (requests) => pending.set(labels, requests),
    ran({ pictures, queueTimes, inputTime, computeTime, outputTime }) {
      inferences(pictures);
      executions();
      // As in Triton, each request of a batch is charged the batch's whole time.
      for (const queueTime of queueTimes) {
        queue(queueTime);
        computeInput(inputTime);
        computeInfer(computeTime);
        computeOutput(outputTime);
      }
    },
  };
}
