/** The pod in which a trainer command runs: fits the `restricted` Pod Security Standard, every container with requests and limits. */
import type {
  V1EnvVar,
  V1PodTemplateSpec,
  V1ResourceRequirements,
  V1Volume,
  V1VolumeMount,
} from '@kubernetes/client-node';
import { ENV, INTAKE_AUDIENCE, PREDICTOR_PORT, type Task } from '../../trainer-image/contract.ts';
import type { PodOverrides } from '../api/pod.ts';
import type { Resources } from '../api/resources.ts';
import { type Component, childLabels, INTAKE_CA_ANNOTATION, STORE_LABEL } from './labels.ts';

/** A claim as a store: `path` is relative to its root, '' for the root itself. */
export interface StoreClaim {
  claimName: string;
  path: string;
  /** ReadWriteOnce: pods of the store have to share a node. */
  oneNode: boolean;
}

/** Where workers report progress. */
export interface Intake {
  url: string;
  /** PEM certificates that the intake is verified against. */
  ca: string;
}

export interface TrainerPod {
  component: Component;
  /** Name of the object the pod works for. */
  owner: string;
  labels?: Record<string, string>;
  image: string;
  task: Task;
  /** Requests and limits, both complete (see `withDefaults`). */
  resources: Required<Resources>;
  store: StoreClaim;
  /** A claim with pictures, mounted read-only. */
  source?: { claimName: string; path: string };
  pod: PodOverrides | undefined;
  intake?: Intake;
}

export const CONTAINER = 'trainer';
export const SOURCE_DIR = '/source';
const STORE_DIR = '/store';
const SCRATCH_DIR = '/scratch';
const IDENTITY_DIR = '/var/run/fovea';
const TERMINATION_LOG = '/dev/termination-log';

/** Seconds between SIGTERM and SIGKILL: a checkpoint of the largest network is written in a few. */
const GRACE_SECONDS = 60;

/** A mount's sub-path: '' and '/' are the claim itself. */
function subPath(path: string): { subPath?: string } {
  const relative = path.replace(/^\/+|\/+$/g, '');
  return relative === '' ? {} : { subPath: relative };
}

function environment(pod: TrainerPod): V1EnvVar[] {
  const reporting: V1EnvVar[] = pod.intake
    ? [
        { name: ENV.INTAKE, value: pod.intake.url },
        { name: ENV.INTAKE_TOKEN_FILE, value: `${IDENTITY_DIR}/token` },
        { name: ENV.INTAKE_CA_FILE, value: `${IDENTITY_DIR}/ca.crt` },
      ]
    : [];
  return [
    // First, so that nothing the user sets can change what the run is: of two values of a name the last one counts.
    ...((pod.pod?.env ?? []) as V1EnvVar[]),
    { name: ENV.POD_IP, valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
    { name: ENV.STORE, value: STORE_DIR },
    { name: ENV.SCRATCH, value: SCRATCH_DIR },
    { name: ENV.TERMINATION_LOG, value: TERMINATION_LOG },
    ...reporting,
    { name: ENV.TASK, value: JSON.stringify(pod.task) },
  ];
}

function volumes(pod: TrainerPod): { volumes: V1Volume[]; mounts: V1VolumeMount[] } {
  const serving = pod.task.kind === 'serve';
  const volumes: V1Volume[] = [
    { name: 'store', persistentVolumeClaim: { claimName: pod.store.claimName, readOnly: serving } },
    { name: 'scratch', emptyDir: {} },
  ];
  const mounts: V1VolumeMount[] = [
    { name: 'store', mountPath: STORE_DIR, readOnly: serving, ...subPath(pod.store.path) },
    { name: 'scratch', mountPath: SCRATCH_DIR },
  ];
  if (pod.source) {
    volumes.push({ name: 'source', persistentVolumeClaim: { claimName: pod.source.claimName, readOnly: true } });
    mounts.push({ name: 'source', mountPath: SOURCE_DIR, readOnly: true, ...subPath(pod.source.path) });
  }
  if (pod.intake) {
    volumes.push({
      name: 'identity',
      projected: {
        sources: [
          { serviceAccountToken: { audience: INTAKE_AUDIENCE, expirationSeconds: 3600, path: 'token' } },
          {
            downwardAPI: {
              items: [{ path: 'ca.crt', fieldRef: { fieldPath: `metadata.annotations['${INTAKE_CA_ANNOTATION}']` } }],
            },
          },
        ],
      },
    });
    mounts.push({ name: 'identity', mountPath: IDENTITY_DIR, readOnly: true });
  }
  return { volumes, mounts };
}

/** Pods of a ReadWriteOnce store go to the node where the first of them runs. */
function sharedNode(store: StoreClaim): Pick<NonNullable<V1PodTemplateSpec['spec']>, 'affinity'> {
  if (!store.oneNode) return {};
  return {
    affinity: {
      podAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: [
          { topologyKey: 'kubernetes.io/hostname', labelSelector: { matchLabels: { [STORE_LABEL]: store.claimName } } },
        ],
      },
    },
  };
}

/** Template of a pod that runs one trainer command on its task. */
export function trainerPodTemplate(pod: TrainerPod, restartPolicy: 'Never' | 'Always'): V1PodTemplateSpec {
  const { volumes: podVolumes, mounts } = volumes(pod);
  const overrides = pod.pod ?? {};
  const serving = pod.task.kind === 'serve';
  return {
    metadata: {
      labels: {
        ...overrides.labels,
        ...childLabels(pod.component, pod.owner),
        ...pod.labels,
        [STORE_LABEL]: pod.store.claimName,
      },
      annotations: { ...overrides.annotations, ...(pod.intake ? { [INTAKE_CA_ANNOTATION]: pod.intake.ca } : {}) },
    },
    spec: {
      restartPolicy,
      // The pod talks to the intake by a projected token; it needs no credentials for the API server.
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: overrides.terminationGracePeriodSeconds ?? GRACE_SECONDS,
      ...(overrides.serviceAccountName ? { serviceAccountName: overrides.serviceAccountName } : {}),
      ...(overrides.imagePullSecrets ? { imagePullSecrets: overrides.imagePullSecrets } : {}),
      ...(overrides.nodeSelector ? { nodeSelector: overrides.nodeSelector } : {}),
      ...(overrides.tolerations ? { tolerations: overrides.tolerations } : {}),
      ...sharedNode(pod.store),
      securityContext: {
        runAsNonRoot: true,
        runAsUser: overrides.securityContext?.runAsUser ?? 1000,
        fsGroup: overrides.securityContext?.fsGroup ?? 1000,
        fsGroupChangePolicy: 'OnRootMismatch',
        ...(overrides.securityContext?.runAsGroup === undefined
          ? {}
          : { runAsGroup: overrides.securityContext.runAsGroup }),
        seccompProfile: { type: 'RuntimeDefault' },
      },
      containers: [
        {
          name: CONTAINER,
          image: pod.image,
          args: [pod.task.kind],
          env: environment(pod),
          resources: pod.resources as V1ResourceRequirements,
          volumeMounts: mounts,
          terminationMessagePath: TERMINATION_LOG,
          terminationMessagePolicy: 'FallbackToLogsOnError',
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          },
          ...(serving
            ? {
                ports: [{ name: 'http', containerPort: PREDICTOR_PORT }],
                readinessProbe: { httpGet: { path: '/v2/health/ready', port: 'http' }, periodSeconds: 2 },
                livenessProbe: {
                  httpGet: { path: '/v2/health/live', port: 'http' },
                  periodSeconds: 10,
                  failureThreshold: 6,
                },
                startupProbe: {
                  httpGet: { path: '/v2/health/live', port: 'http' },
                  periodSeconds: 1,
                  failureThreshold: 120,
                },
              }
            : {}),
        },
      ],
      volumes: podVolumes,
    },
  };
}
