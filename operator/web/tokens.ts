/** Who reports: a projected service-account token, verified offline against the API server's published keys. */
import { createLocalJWKSet, errors, type JSONWebKeySet, jwtVerify } from 'jose';
import { z } from 'zod';
import { INTAKE_AUDIENCE } from '../../trainer-image/contract.ts';

/** The pod a token was made for. */
export interface PodIdentity {
  namespace: string;
  podName: string;
  podUid: string;
}

/** Refused; `status` is the HTTP status, `reason` one word. */
export class Refusal extends Error {
  readonly status: number;
  readonly reason: string;

  constructor(status: number, reason: string, message: string) {
    super(message);
    this.name = 'Refusal';
    this.status = status;
    this.reason = reason;
  }
}

export interface KeySource {
  /** `/.well-known/openid-configuration` and `/openid/v1/jwks` of the API server. */
  raw(path: string): Promise<unknown>;
}

const Claims = z.object({
  'kubernetes.io': z.object({
    namespace: z.string(),
    pod: z.object({ name: z.string(), uid: z.string() }).optional(),
  }),
});

/** Keys are read again for an unknown key id, but no more often than this, whoever sends what. */
const REFRESH = 30_000;

export function tokenVerifier(source: KeySource, now: () => number = () => Date.now()) {
  let keys: { issuer: string; set: JSONWebKeySet; at: number } | undefined;
  let fetching: Promise<NonNullable<typeof keys>> | undefined;

  /** One request at a time, for all who wait for it. */
  function fetchKeys(): Promise<NonNullable<typeof keys>> {
    fetching ??= readKeys().finally(() => {
      fetching = undefined;
    });
    return fetching;
  }

  async function readKeys(): Promise<NonNullable<typeof keys>> {
    try {
      const [configuration, set] = await Promise.all([
        source.raw('/.well-known/openid-configuration'),
        source.raw('/openid/v1/jwks'),
      ]);
      keys = { issuer: (configuration as { issuer: string }).issuer, set: set as JSONWebKeySet, at: now() };
      return keys;
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new Refusal(503, 'KeysUnavailable', `the API server's keys cannot be read: ${why}`);
    }
  }

  /**
   * @returns the pod that the token was made for
   * @throws Refusal 401 for a token that is absent, forged, expired or for another audience; 403 for one that is bound to no
   *   pod; 503 if the API server's keys cannot be read
   */
  return async function verify(authorization: string | undefined): Promise<PodIdentity> {
    const token = /^Bearer (\S+)$/.exec(authorization ?? '')?.[1];
    if (!token) throw new Refusal(401, 'NoToken', 'Authorization: Bearer <token> is missing');
    const known = keys ?? (await fetchKeys());
    const check = (against: NonNullable<typeof keys>) =>
      jwtVerify(token, createLocalJWKSet(against.set), {
        issuer: against.issuer,
        audience: INTAKE_AUDIENCE,
        currentDate: new Date(now()),
      });
    let payload: unknown;
    try {
      ({ payload } = await check(known));
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey) || now() - known.at < REFRESH) throw refused(error);
      try {
        ({ payload } = await check(await fetchKeys()));
      } catch (again) {
        throw again instanceof Refusal ? again : refused(again);
      }
    }
    const claims = Claims.safeParse(payload).data?.['kubernetes.io'];
    if (!claims?.pod) throw new Refusal(403, 'NotAPod', 'the token is bound to no pod');
    return { namespace: claims.namespace, podName: claims.pod.name, podUid: claims.pod.uid };
  };
}

function refused(error: unknown): Refusal {
  if (error instanceof errors.JWTExpired) return new Refusal(401, 'TokenExpired', 'the token has expired');
  if (error instanceof errors.JWTClaimValidationFailed) {
    return new Refusal(401, 'WrongClaim', `the token's claim "${error.claim}" is not what the intake takes`);
  }
  return new Refusal(401, 'BadToken', `the token does not verify: ${error instanceof Error ? error.message : error}`);
}
