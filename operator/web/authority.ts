/** The intake's certificate authority lives in a Secret of the operator's namespace, so that it outlasts the operator. */
import type { Client } from '../kube/client.ts';
import { isAlreadyExists, isNotFound } from '../kube/errors.ts';
import { type KubeObject, SECRETS } from '../kube/resources.ts';
import { checkAuthority, issueAuthority, type KeyPair, renewals, validityOf } from './certificates.ts';

const SECRET = 'fovea-intake-tls';

type Secret = KubeObject & { type?: string; data?: Record<string, string> };

const encode = (text: string) => Buffer.from(text).toString('base64');
const decode = (text = '') => Buffer.from(text, 'base64').toString();

/**
 * The authority, made on first use and renewed (with its key) when its end comes near. Of two operators that make it at once
 * the first wins, and the other takes it over.
 *
 * @throws Error naming the Secret if it holds no authority
 */
export async function loadAuthority(client: Client, namespace: string, now: number): Promise<KeyPair> {
  for (;;) {
    let secret: Secret | undefined;
    try {
      secret = await client.get<Secret>(SECRETS, namespace, SECRET);
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    if (!secret) {
      const made = await issueAuthority(now);
      try {
        await client.create(SECRETS, secretOf(namespace, made));
        return made;
      } catch (error) {
        if (isAlreadyExists(error)) continue;
        throw error;
      }
    }
    const pair = readPair(secret, namespace);
    if (renewals(now, validityOf(pair.certificate), undefined).authority === 'keep') return pair;
    const renewed = await issueAuthority(now, pair);
    const { resourceVersion } = secret.metadata ?? {};
    await client.replace(SECRETS, {
      ...secretOf(namespace, renewed),
      metadata: { name: SECRET, namespace, resourceVersion },
    });
    return renewed;
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

function secretOf(namespace: string, pair: KeyPair): Secret {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: SECRET, namespace, labels: { 'app.kubernetes.io/managed-by': 'fovea' } },
    type: 'kubernetes.io/tls',
    data: { 'tls.crt': encode(pair.certificate), 'tls.key': encode(pair.privateKey) },
  };
}
