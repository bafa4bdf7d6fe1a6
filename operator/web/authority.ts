/**
 * The intake's certificate authority, and the key that the secrets of rings are derived from, live in a Secret of the operator's
 * namespace, so that they outlast the operator.
 */
import { randomBytes } from 'node:crypto';
import type { Client } from '../kube/client.ts';
import { isAlreadyExists, isConflict, isNotFound } from '../kube/errors.ts';
import { type KubeObject, SECRETS } from '../kube/resources.ts';
import { checkAuthority, issueAuthority, type KeyPair, renewals, validityOf } from './certificates.ts';

const SECRET = 'fovea-intake-tls';

type Secret = KubeObject & { type?: string; data?: Record<string, string> };

const encode = (text: string) => Buffer.from(text).toString('base64');
const decode = (text = '') => Buffer.from(text, 'base64').toString();

const RING_KEY_BYTES = 32;

export interface Authority extends KeyPair {
  /** 32 random bytes, made once. */
  ringKey: Uint8Array;
}

/**
 * The authority, made on first use and renewed (with its key) when its end comes near. Of two operators that make it at once
 * the first wins, and the other takes it over; a renewed authority keeps its ring key.
 *
 * @throws Error naming the Secret if it holds no authority
 */
export async function loadAuthority(client: Client, namespace: string, now: number): Promise<Authority> {
  for (;;) {
    let secret: Secret | undefined;
    try {
      secret = await client.get<Secret>(SECRETS, namespace, SECRET);
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    if (!secret) {
      const made = { ...(await issueAuthority(now)), ringKey: randomBytes(RING_KEY_BYTES) };
      try {
        await client.create(SECRETS, secretOf(namespace, made));
        return made;
      } catch (error) {
        if (isAlreadyExists(error)) continue;
        throw error;
      }
    }
    const pair = readPair(secret, namespace);
    const keep = renewals(now, validityOf(pair.certificate), undefined).authority === 'keep';
    const ringKey = Buffer.from(secret.data?.['ring.key'] ?? '', 'base64');
    if (keep && ringKey.length === RING_KEY_BYTES) return { ...pair, ringKey };
    const renewed = {
      ...(keep ? pair : await issueAuthority(now, pair)),
      ringKey: ringKey.length === RING_KEY_BYTES ? ringKey : randomBytes(RING_KEY_BYTES),
    };
    const { resourceVersion } = secret.metadata ?? {};
    try {
      await client.replace(SECRETS, {
        ...secretOf(namespace, renewed),
        metadata: { name: SECRET, namespace, resourceVersion },
      });
      return renewed;
    } catch (error) {
      // Another has written it meanwhile; what it wrote counts.
      if (!isConflict(error)) throw error;
    }
  }
}

function readPair(secret: Secret, namespace: string): KeyPair {
  try {
    return checkAuthority({
      certificate: decode(secret.data?.['tls.crt']),
      privateKey: decode(secret.data?.['tls.key']),
    });
  } catch (error) {
    throw new Error(
      `Secret ${namespace}/${SECRET} holds no certificate authority (${error instanceof Error ? error.message : error}); delete it, and the operator makes another`,
    );
  }
}

function secretOf(namespace: string, authority: Authority): Secret {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: SECRET, namespace, labels: { 'app.kubernetes.io/managed-by': 'fovea' } },
    type: 'kubernetes.io/tls',
    data: {
      'tls.crt': encode(authority.certificate),
      'tls.key': encode(authority.privateKey),
      'ring.key': Buffer.from(authority.ringKey).toString('base64'),
    },
  };
}
