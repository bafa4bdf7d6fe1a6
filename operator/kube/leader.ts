/**
 * Leader election by a Lease. Who holds it renews it; who does not, waits until it has seen the Lease unchanged for as long as the
 * Lease lasts. Only durations on one's own clock are compared, never times of two machines. The holder takes its term for
 * over before anybody else may take the Lease. (After client-go's tools/leaderelection.)
 */
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Client } from './client.ts';
import { ApiError, isAlreadyExists, isConflict, isNotFound } from './errors.ts';
import { reflect } from './reflector.ts';
import { compareVersions, type KubeObject, LEASES } from './resources.ts';
import { Term } from './term.ts';

/** Seconds. */
export interface ElectionTimes {
  /** Others take the Lease when they have seen it unchanged for so long. Whole. Default 15. */
  lease?: number;
  /** The holder stops when it could not renew for so long; enough below `lease` for what is under way to end. Default 10. */
  renew?: number;
  /** Between two renewals, and two looks at a Lease of somebody else's. Default 2. */
  retry?: number;
  /** What a leader that is told to stop has for ending its work well. Default 1. */
  windUp?: number;
}

export interface ElectionOptions {
  client: Client;
  namespace: string;
  /** Name of the Lease. */
  name: string;
  /** No other process may have it, a later one of the same pod neither. */
  identity: string;
  /** Set on the Lease while it is held. */
  annotations?: Record<string, string>;
  /**
   * Called when the Lease is got. Works until the term winds up, and resolves when all that it began has ended. Writes only with
   * `client.during(term)`.
   */
  lead: (term: Term) => Promise<void>;
  /** Called when the Lease could not be read or written, and is tried again. */
  onError?: (error: unknown) => void;
  times?: ElectionTimes;
}

export interface Leader {
  identity: string;
  /** Of the Lease. */
  annotations: Record<string, string>;
}

export interface Election {
  leads(): boolean;
  /** Who held the Lease when it was last seen; undefined if it is free, or is not renewed any more. */
  leader(): Leader | undefined;
  /** Ends the work, and releases the Lease so that another takes it at once. */
  stop(): Promise<void>;
}

interface LeaseSpec {
  holderIdentity?: string;
  leaseDurationSeconds?: number;
  acquireTime?: string;
  renewTime?: string;
  leaseTransitions?: number;
}
type Lease = KubeObject & { spec?: LeaseSpec };

/** Of the wait between two tries: so much more at most, drawn, so that candidates do not come all at once. */
const JITTER = 0.2;
/** A free Lease is taken after at most so many ms, drawn. */
const RUSH = 200;
/** Seconds for releasing the Lease. It is only a courtesy: without it others wait until it has run out. */
const RELEASE_SECONDS = 0.5;

export function elect(options: ElectionOptions): Election {
  const { client, namespace, name, identity, annotations = {}, onError = () => {} } = options;
  const { lease: leaseSeconds = 15, renew = 10, retry = 2, windUp = 1 } = options.times ?? {};
  if (!(leaseSeconds > renew && renew > retry)) {
    throw new Error(`lease ${leaseSeconds} s, renew ${renew} s, retry ${retry} s: each must be longer than the next`);
  }
  const stopping = new AbortController();
  /** The Lease as it was last seen, and when its spec was first seen to be so (ms of performance.now()). */
  let observed: { lease: Lease; since: number } | undefined;
  let term: Term | undefined;
  /** Aborts to end the present wait: the Lease is free. */
  let waking = new AbortController();
  /** We wrote that we hold the Lease and do not know whether the server did it. */
  let unsure = false;

  function observe(lease: Lease): void {
    const known = observed?.lease;
    const same = isDeepStrictEqual(known?.spec, lease.spec);
    observed = { lease, since: same && observed ? observed.since : performance.now() };
    if (holder() === undefined) waking.abort();
    if (holder() !== identity) term?.end(`the Lease ${namespace}/${name} is ${holder() ?? 'nobody'}’s`);
  }

  const holder = () => observed?.lease.spec?.holderIdentity || undefined;

  /** ms until the Lease may be taken by another than its holder. A Lease that was deleted is not free before its time. */
  function untilFree(): number {
    if (!observed || holder() === undefined) return 0;
    return observed.since + (observed.lease.spec?.leaseDurationSeconds ?? leaseSeconds) * 1000 - performance.now();
  }

  /** A client for one try: the server has half of the time that the holder has. */
  function briefly(within: AbortSignal): Client {
    const signal = AbortSignal.any([within, AbortSignal.timeout(renew * 500)]);
    return client.during({ signal, check: () => signal.throwIfAborted() });
  }

  async function read(through: Client): Promise<Lease | undefined> {
    try {
      const lease = await through.get<Lease>(LEASES, namespace, name);
      observe(lease);
      return lease;
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** Writes that we hold it, over `present`; the server refuses if that is not the present one. */
  async function write(through: Client, present: Lease | undefined): Promise<Lease> {
    const now = microTime();
    const ours = present?.spec?.holderIdentity === identity;
    const before = present?.spec ?? observed?.lease.spec;
    const lease: Lease = {
      ...(present ?? { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' }),
      metadata: {
        ...(present?.metadata ?? { name, namespace }),
        annotations: { ...present?.metadata?.annotations, ...annotations },
      },
      spec: {
        holderIdentity: identity,
        leaseDurationSeconds: leaseSeconds,
        acquireTime: ours ? present.spec?.acquireTime : now,
        renewTime: now,
        leaseTransitions: (before?.leaseTransitions ?? 0) + (ours || !before ? 0 : 1),
      },
    };
    const written = present ? await through.replace(LEASES, lease) : await through.create(LEASES, lease);
    observe(written);
    return written;
  }

  /** Waits so many ms, or until the Lease is seen to be free, a signal aborts or we are told to stop. */
  async function pause(ms: number, ...signals: AbortSignal[]): Promise<void> {
    waking = new AbortController();
    await sleep(ms, stopping.signal, waking.signal, ...signals);
  }

  /** @returns the Lease, if we hold it now */
  async function acquire(): Promise<Lease | undefined> {
    const through = briefly(stopping.signal);
    try {
      const present = await read(through);
      if (holder() !== identity && untilFree() > 0) return undefined;
      unsure = true;
      const written = await write(through, present);
      unsure = false;
      return written;
    } catch (error) {
      if (error instanceof ApiError) unsure = false;
      if (!isConflict(error) && !isAlreadyExists(error) && !stopping.signal.aborted) onError(error);
      return undefined;
    }
  }

  /** Renews until the term ends or we are told to stop. `lease` is the one that was written. */
  async function renewUntilOver(current: Term, lease: Lease): Promise<void> {
    let present: Lease | undefined = lease;
    while (!current.signal.aborted && !stopping.signal.aborted) {
      await pause(retry * 1000 * (1 - JITTER * Math.random()), current.signal);
      if (current.signal.aborted || stopping.signal.aborted) return;
      // From before the request: others count from when they see what it wrote, which is later.
      const begun = performance.now();
      const through = briefly(current.signal);
      try {
        if (!present) present = await read(through);
        if (current.signal.aborted) return;
        present = await write(through, present);
        current.extend(begun + renew * 1000);
      } catch (error) {
        if (current.signal.aborted) return;
        // Refused, or not known whether it was done: the next try looks first.
        present = undefined;
        if (!isConflict(error) && !isNotFound(error)) onError(error);
      }
    }
  }

  /** The time in which we hold the Lease, from the write that got it. */
  async function hold(lease: Lease, begun: number): Promise<void> {
    const current = new Term(begun + renew * 1000);
    term = current;
    const work = options.lead(current);
    try {
      await Promise.race([renewUntilOver(current, lease), work]);
      current.windUp();
      // Not released before all writes have ended: of one that is broken off nobody knows whether the server still does it.
      const ended = await Promise.race([work.then(() => true), sleep(windUp * 1000, current.signal)]);
      const released = ended === true && !current.signal.aborted && (await release());
      current.end(released ? 'it was released' : 'it was told to stop');
      await work;
    } finally {
      current.end('its work failed');
      term = undefined;
    }
  }

  async function release(): Promise<boolean> {
    const signal = AbortSignal.timeout(RELEASE_SECONDS * 1000);
    const through = client.during({ signal, check: () => signal.throwIfAborted() });
    try {
      const present = await read(through);
      if (present?.spec?.holderIdentity !== identity) return false;
      const now = microTime();
      const left = Object.entries(present.metadata?.annotations ?? {}).filter(([key]) => !(key in annotations));
      await through.replace<Lease>(LEASES, {
        ...present,
        metadata: { ...present.metadata, annotations: Object.fromEntries(left) },
        spec: { ...present.spec, holderIdentity: '', leaseDurationSeconds: 1, acquireTime: now, renewTime: now },
      });
      return true;
    } catch (error) {
      onError(error);
      return false;
    }
  }

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      const begun = performance.now();
      const lease = await acquire();
      if (lease) await hold(lease, begun);
      else {
        const free = untilFree();
        const look = retry * 1000 * (1 + JITTER * Math.random());
        await pause(free > 0 ? Math.min(look, free + RUSH * Math.random()) : look);
      }
    }
    if (unsure) await release();
  }

  const watch = reflect<Lease>(client, {
    resource: LEASES,
    select: { fieldSelector: `metadata.name=${name}` },
    namespaces: [namespace],
    onChange: ({ type, object }) => {
      if (type !== 'set') return;
      // What was read or written directly may be ahead of the watch.
      const { resourceVersion } = observed?.lease.metadata ?? {};
      if (!resourceVersion || compareVersions(object.metadata?.resourceVersion, resourceVersion) > 0) observe(object);
    },
    onError,
  });
  const running = run();

  return {
    leads: () => term !== undefined && !term.signal.aborted,
    leader() {
      const current = holder();
      if (current === undefined || untilFree() <= 0) return undefined;
      return { identity: current, annotations: observed?.lease.metadata?.annotations ?? {} };
    },
    async stop() {
      stopping.abort();
      await running;
      await watch.stop();
    },
  };
}

/** Resolves after `ms`, or when a signal aborts. */
async function sleep(ms: number, ...signals: AbortSignal[]): Promise<void> {
  await delay(ms, undefined, { signal: AbortSignal.any(signals) }).catch(() => {});
}

/** Kubernetes' MicroTime. */
const microTime = () => new Date().toISOString().replace('Z', '000Z');
