/** Requests and limits of a container: both are always set, so that a namespace with a quota accepts the pod. */
import type { Resources } from '../api/resources.ts';

const DEFAULTS = {
  prepare: { requests: { cpu: '500m', memory: '512Mi' }, limits: { cpu: '2', memory: '2Gi' } },
  train: { requests: { cpu: '1', memory: '2Gi' }, limits: { cpu: '4', memory: '4Gi' } },
  export: { requests: { cpu: '500m', memory: '1Gi' }, limits: { cpu: '2', memory: '4Gi' } },
  serve: { requests: { cpu: '250m', memory: '256Mi' }, limits: { cpu: '2', memory: '1Gi' } },
} as const;

/** What the user names wins; a limit without a request is the request too, as Kubernetes has it. */
export function withDefaults(command: keyof typeof DEFAULTS, resources: Resources | undefined): Required<Resources> {
  const limits = { ...DEFAULTS[command].limits, ...resources?.limits };
  const requests = { ...DEFAULTS[command].requests, ...resources?.limits, ...resources?.requests };
  // A request named alone may lie above the default limit.
  for (const [name, request] of Object.entries(resources?.requests ?? {})) {
    if (resources?.limits?.[name] === undefined) limits[name as 'cpu'] = request as never;
  }
  return { requests, limits };
}

/** Threads for a compute library: the CPU limit, rounded up. */
export function threads(resources: Required<Resources>): number {
  const cpu = String(resources.limits.cpu ?? '1');
  const cores = cpu.endsWith('m') ? Number(cpu.slice(0, -1)) / 1000 : Number(cpu);
  return Math.max(1, Math.ceil(Number.isFinite(cores) ? cores : 1));
}
