/** One control plane with real controllers and a played kubelet, in which schedules run, each in namespaces of its own. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Client, connect } from '../../operator/kube/client.ts';
import { loadConfig } from '../../operator/kube/credentials.ts';
import { CLAIMS, type KubeObject, LEASES, type Resource, SECRETS } from '../../operator/kube/resources.ts';
import { type ControlPlane, startControlPlane } from '../cluster/controlplane.ts';
import { installKinds } from '../envtest/kinds.ts';
import { eventually } from '../eventually.ts';
import { differences, type EndState, endState } from './endstate.ts';
import { disturb } from './faults.ts';
import { type Kubelet, startKubelet, type Ward } from './kubelet.ts';
import { lies } from './lies.ts';
import { type OperatorProcess, startOperator } from './operator.ts';
import { startRecordingProxy, type Write } from './proxy.ts';
import { SCENARIOS } from './scenarios.ts';
import type { Schedule } from './schedule.ts';
import { createStage } from './stage.ts';
import { type Chronicle, openTimeline, type Timeline, TOLD } from './timeline.ts';

const NAMESPACES: Resource = { group: '', version: 'v1', plural: 'namespaces', kind: 'Namespace', namespaced: false };
const VOLUMES: Resource = {
  group: '',
  version: 'v1',
  plural: 'persistentvolumes',
  kind: 'PersistentVolume',
  namespaced: false,
};

/** Seconds in which nothing may change any more before the end state is taken, undisturbed and as what was expected. */
const QUIET = { undisturbed: 2, disturbed: 1 };
/** Seconds within which a disturbed end state must become the undisturbed one. */
const CONVERGES = 30;
/** While the operator is away, its work counts as ended when nothing changes for so many seconds; and the longest time. */
const AWAY = { quiet: 1.5, longest: 10 };

/** What came of a scenario. */
export interface Outcome {
  writes: readonly Write[];
  state: EndState;
  /** Jobs and Deployments that were ever created, sorted. */
  births: string[];
  /** How often pods of each run were started. */
  starts: Record<string, number>;
  /** What was wrong in itself, whatever is compared with. */
  wrong: string[];
  /** The disturbance that came about, in words; undefined if the scenario was over before. */
  disturbed: string | undefined;
  /** The operator's output. */
  log: string;
}

export interface Arena extends AsyncDisposable {
  /**
   * Runs a scenario, undisturbed or as the schedule says.
   *
   * @param expected the undisturbed outcome that a disturbed one is to become
   */
  run(scenario: string, disturbed?: { schedule: Schedule; expected: Outcome }): Promise<Outcome>;
}

/** What is left of a schedule in the folder of logs is removed with the arena. */
export async function openArena(): Promise<Arena> {
  const plane = await startControlPlane({ controllers: true });
  const client = await connect(loadConfig(plane.kubeconfig));
  await installKinds(client);
  const timeline = await openTimeline(client);
  const kubelet = await startKubelet(plane.admin, client, timeline);
  const dir = await mkdtemp(join(tmpdir(), 'fovea-faults-'));
  let runs = 0;
  return {
    async run(scenario, disturbed) {
      runs += 1;
      const namespace = `faults-${String(runs).padStart(4, '0')}`;
      const place = { plane, client, timeline, kubelet, namespace, dir };
      return await runIn(place, scenario, disturbed);
    },
    async [Symbol.asyncDispose]() {
      await timeline.stop();
      await kubelet[Symbol.asyncDispose]();
      await client.close();
      await plane.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

interface Place {
  plane: ControlPlane;
  client: Client;
  timeline: Timeline;
  kubelet: Kubelet;
  namespace: string;
  dir: string;
}

async function runIn(
  { plane, client, timeline, kubelet, namespace, dir }: Place,
  scenario: string,
  disturbed: { schedule: Schedule; expected: Outcome } | undefined,
): Promise<Outcome> {
  const ownNamespace = `${namespace}-operator`;
  const log = join(dir, `${namespace}.log`);
  const kubeconfig = join(dir, `${namespace}.kubeconfig`);
  const chronicle = timeline.of(namespace);
  const ward = kubelet.take(namespace);
  const given: string[] = [];
  const wrong: string[] = [];
  await using proxy = await startRecordingProxy(plane.admin);
  await proxy.kubeconfig(kubeconfig);
  const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
  for (const name of [namespace, ownNamespace]) {
    await client.create(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } });
  }
  await bindStore(client, namespace);

  let operator: OperatorProcess | undefined;
  let away = false;
  let stopped = false;
  /** The operator in work, and what is wrong if it ends by itself. */
  function start(): void {
    proxy.open();
    const process = startOperator({ kubeconfig, namespace, ownNamespace, log });
    operator = process;
    process.ended.then((how) => {
      if (operator === process) wrong.push(`the operator ended by itself: ${how}`);
    });
  }
  async function kill(): Promise<void> {
    const process = operator;
    operator = undefined;
    await process?.kill();
    proxy.close();
    // It would have to run out first, which is tested elsewhere.
    for (const { metadata } of (await client.list<KubeObject>(LEASES, { namespace: ownNamespace })).items) {
      await client.delete(LEASES, ownNamespace, metadata?.name ?? '').catch(() => {});
    }
  }
  const fault =
    disturbed &&
    disturb(disturbed.schedule, {
      proxy,
      kill,
      start: () => void (stopped || start()),
      async leaveAlone() {
        away = true;
        kubelet.wake(namespace);
        await quiet(chronicle, AWAY.quiet, AWAY.longest);
        away = false;
      },
      newestVersion: () => chronicle.moments.at(-1)?.version ?? '0',
    });
  if (fault) proxy.rules = fault.rules;

  const stage = createStage({
    client,
    namespace,
    chronicle,
    kubelet,
    ward,
    begin: proxy.count,
    isAway: () => away,
    onGiven: (digest) => given.push(digest),
  });
  let state: EndState = {};
  try {
    start();
    await SCENARIOS[scenario](stage);
    await fault?.over();
    await eventually(
      async () => isFollowing(proxy.watched(), proxy.leases),
      () => 'the operator watches again',
      60,
    );
    const now = () => observe(client, namespace, ownNamespace, chronicle);
    if (!disturbed) {
      await quiet(chronicle, QUIET.undisturbed, CONVERGES);
      state = await now();
    } else {
      const { expected } = disturbed;
      const deadline = performance.now() + CONVERGES * 1000;
      for (;;) {
        await quiet(chronicle, QUIET.disturbed, CONVERGES);
        state = await now();
        if (differences(expected.state, state).length === 0 || performance.now() > deadline) break;
        await delay(250);
      }
    }
    await caughtUp(client, namespace, chronicle);
  } catch (error) {
    wrong.push(`${error instanceof Error ? error.message : error}`);
    state = await observe(client, namespace, ownNamespace, chronicle);
  } finally {
    stopped = true;
    await kill();
  }
  const names = namesIn(namespace, chronicle);
  const outcome: Outcome = {
    writes: proxy.writes,
    state,
    births: birthsIn(chronicle),
    starts: startsOf(ward, names.uids),
    wrong: [...wrong, ...ward.errors, ...lies(chronicle.moments, given)],
    disturbed: fault?.happened() ? fault.what : undefined,
    log: await readFile(log, 'utf8').catch(() => ''),
  };
  kubelet.leave(namespace);
  for (const name of [namespace, ownNamespace]) await client.delete(NAMESPACES, undefined, name);
  await client.delete(VOLUMES, undefined, namespace);
  timeline.forget(namespace);
  timeline.forget(ownNamespace);
  return outcome;
}

/** A claim with a volume: what a pod waits for otherwise is a trouble of its own. */
async function bindStore(client: Client, namespace: string): Promise<void> {
  const name = 'fovea-store';
  const spec = { accessModes: ['ReadWriteMany'], storageClassName: '' };
  const storage = '1Gi';
  await client.create(VOLUMES, {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: namespace },
    spec: { ...spec, capacity: { storage }, claimRef: { namespace, name }, hostPath: { path: '/nowhere' } },
  } as KubeObject);
  await client.create(CLAIMS, {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name, namespace },
    spec: { ...spec, volumeName: namespace, resources: { requests: { storage } } },
  } as KubeObject);
  const claim = () => client.get<KubeObject & { status?: { phase?: string } }>(CLAIMS, namespace, name);
  await eventually(
    async () => (await claim()).status?.phase === 'Bound',
    () => 'the claim is bound',
  );
}

/** All caches are followed, and if there is a Lease it is held. */
function isFollowing(watched: Set<string>, leases: { asked: number; written: number }): boolean {
  return TOLD.every(({ plural }) => watched.has(plural)) && (leases.asked === 0 || leases.written > 0);
}

/** Resolves when nothing changed for `seconds`, or after `longest`. */
async function quiet(chronicle: Chronicle, seconds: number, longest: number): Promise<void> {
  const deadline = performance.now() + longest * 1000;
  let seen = chronicle.moments.length;
  let since = performance.now();
  while (performance.now() - since < seconds * 1000 && performance.now() < deadline) {
    await delay(50);
    if (chronicle.moments.length === seen) continue;
    seen = chronicle.moments.length;
    since = performance.now();
  }
}

/** The names of all that ever was in the namespace. */
function namesIn(namespace: string, { moments }: Chronicle) {
  const uids = new Map<string, string>();
  const pods = new Map<string, string>();
  for (const { kind, object } of moments) {
    const {
      name = '',
      uid = '',
      generateName,
    } = object.metadata as { name?: string; uid?: string; generateName?: string };
    if (kind === 'Pod' && generateName) pods.set(name, generateName);
    uids.set(uid, `${kind} ${kind === 'Pod' ? generateName : name}`);
  }
  return { namespace, uids, pods };
}

async function observe(
  client: Client,
  namespace: string,
  ownNamespace: string,
  chronicle: Chronicle,
): Promise<EndState> {
  const objects: KubeObject[] = [];
  for (const resource of TOLD) objects.push(...(await client.list<KubeObject>(resource, { namespace })).items);
  const secrets = await client.list<KubeObject>(SECRETS, { namespace: ownNamespace });
  // A pod that is told to go does so in its own time.
  const staying = objects.filter(({ kind, metadata }) => kind !== 'Pod' || !metadata?.deletionTimestamp);
  return endState([...staying, ...secrets.items], namesIn(namespace, chronicle));
}

/** Resolves when the chronicle has the newest version of all that is there. */
async function caughtUp(client: Client, namespace: string, chronicle: Chronicle): Promise<void> {
  await eventually(
    async () => {
      for (const resource of TOLD) {
        for (const { metadata } of (await client.list<KubeObject>(resource, { namespace })).items) {
          const known = chronicle.find(resource.kind, metadata?.name ?? '')?.metadata?.resourceVersion;
          if (known !== metadata?.resourceVersion) return false;
        }
      }
      return true;
    },
    () => 'the watches bring all versions',
    30,
  );
}

function birthsIn({ moments }: Chronicle): string[] {
  const seen = new Map<string, string>();
  for (const { kind, object } of moments) {
    if (kind === 'Job' || kind === 'Deployment')
      seen.set(object.metadata?.uid ?? '', `${kind}/${object.metadata?.name}`);
  }
  return [...seen.values()].sort();
}

function startsOf(ward: Ward, uids: Map<string, string>): Record<string, number> {
  const starts: Record<string, number> = {};
  for (const [run, count] of ward.starts) {
    let name = run;
    for (const [uid, owner] of uids) name = name.replace(uid, owner);
    starts[name] = (starts[name] ?? 0) + count;
  }
  return starts;
}

/** Sentences, one for each thing in which a disturbed outcome is not as it should be. */
export function divergences(expected: Outcome, outcome: Outcome): string[] {
  return [
    ...outcome.wrong,
    ...differences(expected.state, outcome.state).map((difference) => `end state: ${difference}`),
    ...differences(count(expected.births), count(outcome.births)).map((d) => `created: ${d}`),
    ...differences(expected.starts, outcome.starts).map((difference) => `starts of a run's pods: ${difference}`),
  ];
}

function count(names: string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}
