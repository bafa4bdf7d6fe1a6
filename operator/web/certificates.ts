/**
 * The intake's certificates: a long-lived authority, whose certificate pods are given when they are made, and short-lived
 * leaves that it signs. Here: issuing, reading, and the decision what must be renewed when. Elliptic keys on P-256.
 */
// @peculiar/x509 needs the Reflect metadata polyfill before it is loaded.
import 'reflect-metadata';
import { createPrivateKey, webcrypto, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const AUTHORITY_SUBJECT = 'CN=fovea-intake-ca';
const DAY = 86_400_000;

/** Lifetimes in milliseconds. */
export const LIFETIME = {
  authority: 3650 * DAY,
  /** The authority is renewed this long before its end, with its old key: a pod that holds the old certificate goes on verifying. */
  authorityRenewal: 365 * DAY,
  leaf: 90 * DAY,
  leafRenewal: 30 * DAY,
  /** Certificates count from this long ago, for clocks that are behind. */
  skew: 300_000,
} as const;

/** A certificate and its private key (PKCS #8), both PEM. */
export interface KeyPair {
  certificate: string;
  privateKey: string;
}

/** What is known of a certificate when deciding on its renewal. */
export interface Validity {
  /** End, in milliseconds since 1970. */
  notAfter: number;
}

/**
 * What must be made now, and when (milliseconds since 1970) to look again.
 *
 * @param authority undefined: there is none yet
 * @param leaf undefined: none was issued in this process
 */
export function renewals(now: number, authority: Validity | undefined, leaf: Validity | undefined) {
  const authorityDue = authority === undefined ? 'create' : authority.notAfter - now <= LIFETIME.authorityRenewal;
  const leafDue = leaf === undefined || authorityDue === 'create' || leaf.notAfter - now <= LIFETIME.leafRenewal;
  const authorityEnd = authority && !authorityDue ? authority.notAfter : now + LIFETIME.authority;
  const leafEnd = leafDue ? now + LIFETIME.leaf : leaf.notAfter;
  return {
    authority: authorityDue === 'create' ? ('create' as const) : authorityDue ? ('renew' as const) : ('keep' as const),
    leaf: leafDue ? ('issue' as const) : ('keep' as const),
    nextLook: Math.min(authorityEnd - LIFETIME.authorityRenewal, leafEnd - LIFETIME.leafRenewal),
  };
}

/** End of a PEM certificate. Throws on anything else. */
export function validityOf(certificate: string): Validity {
  return { notAfter: Date.parse(new X509Certificate(certificate).validTo) };
}

/** A self-signed authority; with `renewed`, a new certificate over that one's key. */
export async function issueAuthority(now: number, renewed?: KeyPair): Promise<KeyPair> {
  const keys = renewed
    ? await importKeys(renewed.privateKey)
    : await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: AUTHORITY_SUBJECT,
    keys,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(now - LIFETIME.skew),
    notAfter: new Date(now + LIFETIME.authority),
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: certificate.toString('pem'), privateKey: await exportKey(keys.privateKey) };
}

/**
 * A server certificate of a new key.
 *
 * @param hosts DNS names and IP addresses it is valid for; the first is its common name
 */
export async function issueLeaf(now: number, authority: KeyPair, hosts: string[]): Promise<KeyPair> {
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const signer = await importKeys(authority.privateKey);
  const certificate = await X509CertificateGenerator.create({
    // A common name has at most 64 characters; clients look at the alternative names alone.
    subject: `CN=${(hosts[0] ?? 'fovea').slice(0, 64)}`,
    issuer: AUTHORITY_SUBJECT,
    publicKey: keys.publicKey,
    signingKey: signer.privateKey,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(now - LIFETIME.skew),
    notAfter: new Date(now + LIFETIME.leaf),
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension(hosts.map((value) => ({ type: isIP(value) ? 'ip' : 'dns', value }))),
      await AuthorityKeyIdentifierExtension.create(signer.publicKey),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: certificate.toString('pem'), privateKey: await exportKey(keys.privateKey) };
}

/**
 * The authority as found in a Secret.
 *
 * @throws Error saying what is wrong with it
 */
export function checkAuthority(pair: KeyPair): KeyPair {
  const certificate = new X509Certificate(pair.certificate);
  if (!certificate.ca) throw new Error('its certificate is not that of an authority');
  const key = createPrivateKey(pair.privateKey);
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error('its key is not elliptic on P-256');
  if (!certificate.checkPrivateKey(key)) throw new Error('its key is not that of its certificate');
  return pair;
}

async function importKeys(privateKey: string) {
  const key = createPrivateKey(privateKey);
  const { x, y, crv, kty } = key.export({ format: 'jwk' });
  const usable = await webcrypto.subtle.importKey(
    'pkcs8',
    key.export({ format: 'der', type: 'pkcs8' }),
    ALGORITHM,
    true,
    ['sign'],
  );
  return {
    privateKey: usable,
    publicKey: await webcrypto.subtle.importKey('jwk', { x, y, crv, kty }, ALGORITHM, true, ['verify']),
  };
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key));
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({
    format: 'pem',
    type: 'pkcs8',
  }) as string;
}
