/**
 * Plays scheduler and kubelet on the real API, for all namespaces: binds pods to a node of its own, says that they run, ends
 * them with the answer of their task when their time has come, and obeys deletion. Only the containers are not there.
 *
 * A pod goes Pending (no node) -> Pending (bound) -> Running -> Succeeded or Failed; deleted while it runs, a worker ends as
 * INTERRUPTED and a predictor with 0, and then it is let go.
 */
import type { V1ContainerState, V1Pod } from '@kubernetes/client-node';
import type { Client } from '../../operator/kube/client.ts';
import { type KubeObject, LEASES, PODS, type Resource, resourcePath } from '../../operator/kube/resources.ts';
import { CONTAINER } from '../../operator/manifests/pod.ts';
import { ENV, EXIT, Task, type TerminationMessage } from '../../trainer-image/contract.ts';
import { type Access, request } from '../cluster/requests.ts';
import { type Answer, answerTo, BAD } from './answers.ts';
import type { Moment, Timeline } from './timeline.ts';

/** How the pods of a namespace are played, and what was seen of them. */
export interface Ward {
  /** Whether the work of this pod may end now. Asked again at each change of the namespace's chronicle. */
  mayEnd: (pod: V1Pod, task: Task) => boolean;
  /** The store: answers by run. A pod whose run has one ends at once with it, as the trainer does. */
  readonly finished: Map<string, Answer>;
  /** How often pods of a run were started. */
  readonly starts: Map<string, number>;
  /** What went wrong with the playing itself. */
  readonly errors: string[];
}

export interface Kubelet extends AsyncDisposable {
  /** Plays the namespace's pods from now on. */
  take(namespace: string): Ward;
  /** Asks `mayEnd` again. */
  wake(namespace: string): void;
  /** Lets the namespace's pods go, and ends no more work. */
  leave(namespace: string): void;
}

const NODE = 'play';
const NODES: Resource = { group: '', version: 'v1', plural: 'nodes', kind: 'Node', namespaced: false };
/** Seconds; the node controller gives a node up after 50. */
const HEARTBEAT = 10;

function taskOf(pod: V1Pod): Task | undefined {
  const value = pod.spec?.containers.find(({ name }) => name === CONTAINER)?.env?.find(({ name }) => name === ENV.TASK);
  return value?.value === undefined ? undefined : Task.parse(JSON.parse(value.value));
}

export async function startKubelet(access: Access, client: Client, timeline: Timeline): Promise<Kubelet> {
  const wards = new Map<string, Ward>();
  /** The newest version of each pod by uid, and the work on it, one piece after another. */
  const newest = new Map<string, V1Pod>();
  const turns = new Map<string, Promise<void>>();
  /** What was done to a pod already, by uid: its event may not be here yet. */
  const done = new Map<string, Set<string>>();
  let addresses = 0;

  async function send(method: string, path: string, body: object, type = 'application/json'): Promise<void> {
    const { status, body: answer } = await request(access, path, {
      method,
      body,
      // Node sends the body of a DELETE without its length otherwise, and nobody reads it.
      headers: { 'content-type': type, 'content-length': `${Buffer.byteLength(JSON.stringify(body))}` },
      timeoutMs: 30_000,
    });
    // The pod is gone, or another of its name is there: its next event tells.
    if (status >= 300 && status !== 404 && status !== 409) throw new Error(`${method} ${path}: ${status} ${answer}`);
  }

  const pathOf = (pod: V1Pod, subresource?: string) =>
    resourcePath(PODS, pod.metadata?.namespace, pod.metadata?.name, subresource);

  function patchStatus(pod: V1Pod, status: object): Promise<void> {
    const body = { metadata: { uid: pod.metadata?.uid }, status };
    return send('PATCH', pathOf(pod, 'status'), body, 'application/strategic-merge-patch+json');
  }

  const stateOf = (pod: V1Pod) => pod.status?.containerStatuses?.find(({ name }) => name === CONTAINER)?.state;

  function container(pod: V1Pod, state: object, ready: boolean): object {
    const image = pod.spec?.containers[0].image;
    return { name: CONTAINER, image, imageID: image, restartCount: 0, ready, started: ready, state };
  }

  function conditions(ready: boolean): object[] {
    const lastTransitionTime = new Date().toISOString();
    const status = ready ? 'True' : 'False';
    return ['Ready', 'ContainersReady'].map((type) => ({ type, status, lastTransitionTime }));
  }

  const end = (pod: V1Pod, exitCode: number, message: TerminationMessage) => {
    const running = stateOf(pod) as V1ContainerState;
    const terminated = {
      exitCode,
      message: JSON.stringify(message),
      reason: exitCode === EXIT.DONE ? 'Completed' : 'Error',
      startedAt: running.running?.startedAt,
      finishedAt: new Date().toISOString(),
    };
    return patchStatus(pod, {
      phase: exitCode === EXIT.DONE ? 'Succeeded' : 'Failed',
      conditions: conditions(false),
      containerStatuses: [container(pod, { terminated, running: null }, false)],
    });
  };

  async function run(pod: V1Pod, ward: Ward): Promise<void> {
    const task = taskOf(pod);
    if (!task) return;
    const run = 'run' in task ? task.run : undefined;
    if (run !== undefined) ward.starts.set(run, (ward.starts.get(run) ?? 0) + 1);
    const broken = task.kind === 'serve' && task.batching.maxBatchSize === BAD.maxBatchSize;
    const now = new Date().toISOString();
    const waiting = { reason: 'CrashLoopBackOff', message: 'back-off 10s restarting failed container' };
    const serves = task.kind === 'serve' && !broken;
    await patchStatus(pod, {
      phase: 'Running',
      podIP: `10.7.${(addresses >> 8) % 256}.${addresses++ % 256}`,
      startTime: now,
      conditions: conditions(serves || task.kind !== 'serve'),
      containerStatuses: [container(pod, broken ? { waiting } : { running: { startedAt: now } }, !broken)],
    });
  }

  async function work(pod: V1Pod, ward: Ward): Promise<void> {
    const task = taskOf(pod);
    if (!task || !('run' in task)) return;
    const known = ward.finished.get(task.run);
    if (!known && !ward.mayEnd(pod, task)) return;
    const answer = known ?? answerTo(task);
    if (answer.exitCode === EXIT.DONE) ward.finished.set(task.run, answer);
    await once(pod.metadata?.uid ?? '', 'end', () => end(pod, answer.exitCode, answer.message));
  }

  async function once(uid: string, action: string, act: () => Promise<void>): Promise<void> {
    const actions = done.get(uid) ?? new Set();
    done.set(uid, actions);
    if (actions.has(action)) return;
    await act();
    actions.add(action);
  }

  /** The next step of a pod, from its newest version. */
  async function step(uid: string): Promise<void> {
    const pod = newest.get(uid);
    const ward = wards.get(pod?.metadata?.namespace ?? '');
    if (!pod || !ward) return;
    const { phase } = pod.status ?? {};
    const ended = phase === 'Succeeded' || phase === 'Failed';
    if (pod.metadata?.deletionTimestamp) {
      const running = phase === 'Running' && stateOf(pod)?.running;
      const isWorker = taskOf(pod)?.kind !== 'serve';
      if (running && !ended && isWorker) await once(uid, 'end', () => end(pod, EXIT.INTERRUPTED, {}));
      // Of no effect while the pod has finalizers; then there is a newer version without them.
      const letGo = `let go at ${pod.metadata.resourceVersion}`;
      await once(uid, letGo, () => send('DELETE', pathOf(pod), { gracePeriodSeconds: 0, preconditions: { uid } }));
    } else if (ended) return;
    else if (!pod.spec?.nodeName) {
      const target = { apiVersion: 'v1', kind: 'Node', name: NODE };
      const metadata = { name: pod.metadata?.name, uid };
      const binding = { apiVersion: 'v1', kind: 'Binding', metadata, target };
      await once(uid, 'bind', () => send('POST', pathOf(pod, 'binding'), binding));
    } else if (phase === 'Pending') await once(uid, 'run', () => run(pod, ward));
    else if (stateOf(pod)?.running) await work(pod, ward);
  }

  function enqueue(uid: string): void {
    const before = turns.get(uid) ?? Promise.resolve();
    const turn = before
      .then(() => step(uid))
      .catch((error) => {
        wards.get(newest.get(uid)?.metadata?.namespace ?? '')?.errors.push(`the played kubelet: ${error}`);
      })
      .finally(() => {
        if (turns.get(uid) === turn) turns.delete(uid);
      });
    turns.set(uid, turn);
  }

  function wake(namespace: string): void {
    for (const [uid, pod] of newest) if (pod.metadata?.namespace === namespace) enqueue(uid);
  }

  timeline.onMoment = ({ type, kind, object }: Moment) => {
    const { namespace = '', uid = '' } = object.metadata ?? {};
    if (kind !== 'Pod') return wake(namespace);
    if (type === 'DELETED') {
      newest.delete(uid);
      done.delete(uid);
    } else {
      newest.set(uid, object as V1Pod);
      enqueue(uid);
    }
  };

  const ready = (now: string) => ({
    type: 'Ready',
    status: 'True',
    reason: 'Played',
    message: 'played',
    lastHeartbeatTime: now,
    lastTransitionTime: now,
  });
  const lease = (): KubeObject & { spec: object } => ({
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name: NODE, namespace: 'kube-node-lease' },
    spec: {
      holderIdentity: NODE,
      leaseDurationSeconds: 40,
      renewTime: new Date().toISOString().replace('Z', '000Z'),
    },
  });
  await client.create(NODES, { apiVersion: 'v1', kind: 'Node', metadata: { name: NODE } });
  const capacity = { cpu: '1000', memory: '1000Gi', pods: '10000' };
  const status = { capacity, allocatable: capacity, conditions: [ready(new Date().toISOString())] };
  await send('PATCH', resourcePath(NODES, undefined, NODE, 'status'), { status }, 'application/merge-patch+json');
  await client.apply(LEASES, lease(), NODE);
  const heartbeat = setInterval(() => client.apply(LEASES, lease(), NODE).catch(() => {}), HEARTBEAT * 1000);

  return {
    take(namespace) {
      const ward: Ward = { mayEnd: () => true, finished: new Map(), starts: new Map(), errors: [] };
      wards.set(namespace, ward);
      return ward;
    },
    wake,
    leave(namespace) {
      // Pods of a namespace that is on its way out still have to be let go.
      const ward = wards.get(namespace);
      if (ward) ward.mayEnd = () => false;
    },
    async [Symbol.asyncDispose]() {
      clearInterval(heartbeat);
      await Promise.allSettled(turns.values());
    },
  };
}
