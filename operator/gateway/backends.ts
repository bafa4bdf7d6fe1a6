/** Pods as the gateway talks to them: kept connections, requests in flight, and the choice among them. */
import { Pool } from 'undici';
import type { Endpoint, Route } from './routes.ts';

/** One pod. */
export interface Backend {
  uid: string;
  origin: string;
  revision: string;
  /** Requests sent by this gateway and not yet answered in full. */
  inFlight: number;
  /** Until when (performance.now()) others are preferred, because it could not be reached. */
  avoidUntil: number;
  pool: Pool;
}

/**
 * Milliseconds for which a pod that could not be reached is left to itself. It has the fewest requests in flight, so that without
 * this every request would begin with it until the API server says that it is gone.
 */
const AVOIDED = 1000;

export function avoid(backend: Backend): void {
  backend.avoidUntil = performance.now() + AVOIDED;
}

/** A route whose endpoints are backends. */
export interface LiveRoute extends Pick<Route, 'namespace' | 'name' | 'maxBodyBytes' | 'timeoutMilliseconds'> {
  revisions: { name: string; weight: number; backends: Backend[] }[];
}

/**
 * Connections stay open between requests: HTTP/1.1, one request at a time each, as many as are needed. How long an idle one is
 * kept follows the predictor's `Keep-Alive: timeout` when it says one.
 */
export function openBackend(endpoint: Endpoint, revision: string): Backend {
  return {
    ...endpoint,
    revision,
    inFlight: 0,
    avoidUntil: 0,
    pool: new Pool(endpoint.origin, {
      pipelining: 1,
      // A pod's address answers or refuses within milliseconds; a lost node does neither.
      connect: { timeout: 2000 },
      // The exchange has one deadline of its own for all attempts.
      headersTimeout: 0,
      bodyTimeout: 0,
    }),
  };
}

/**
 * Chooses a pod: first the revision, by weight; then, within it, the pod with the fewest requests in flight, of those that can be
 * reached as far as is known. Pods in `tried` are left out, and with them a revision that has no other.
 *
 * @param random uniform in [0, 1)
 */
export function choose(route: LiveRoute, tried: readonly Backend[], random: () => number): Backend | undefined {
  const candidates = tried.length === 0 ? route.revisions : untried(route, tried);
  if (candidates.length === 0) return undefined;
  let revision = candidates[0]!;
  if (candidates.length > 1) {
    let mark = random() * candidates.reduce((total, { weight }) => total + weight, 0);
    for (const candidate of candidates) {
      revision = candidate;
      mark -= candidate.weight;
      if (mark < 0) break;
    }
  }
  const { backends } = revision;
  // Counting from a random place breaks ties evenly.
  const start = backends.length === 1 ? 0 : Math.floor(random() * backends.length);
  let best = backends[start]!;
  const now = performance.now();
  for (let i = 1; i < backends.length; i++) {
    const backend = backends[(start + i) % backends.length]!;
    const [avoided, bestAvoided] = [backend.avoidUntil > now, best.avoidUntil > now];
    if (avoided === bestAvoided ? backend.inFlight < best.inFlight : bestAvoided) best = backend;
  }
  return best;
}

function untried(route: LiveRoute, tried: readonly Backend[]): LiveRoute['revisions'] {
  return route.revisions.flatMap((revision) => {
    const backends = revision.backends.filter((backend) => !tried.includes(backend));
    return backends.length > 0 ? [{ ...revision, backends }] : [];
  });
}
