/**
 * The certificates of a disposable cluster. Elliptic keys on P-256, valid for ten years: the clusters that use them live
 * for minutes to weeks, and nothing renews them.
 */
// @peculiar/x509 needs the Reflect metadata polyfill before it is loaded.
import 'reflect-metadata';
import { createPrivateKey, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const LIFETIME_MS = 3650 * 86_400_000;
/** Certificates count from this long ago, for clocks that are behind. */
const SKEW_MS = 300_000;

/** A certificate and its private key (PKCS #8), both PEM. */
export interface KeyPair {
  certificate: string;
  privateKey: string;
}

/** Whom a certificate names. Kubernetes takes the common name for the user, and the organization for the group. */
export interface Subject {
  user: string;
  group?: string;
  /** DNS names and addresses that a server answers under; absent: a client only. */
  hosts?: readonly string[];
}

const validity = () => ({
  notBefore: new Date(Date.now() - SKEW_MS),
  notAfter: new Date(Date.now() + LIFETIME_MS),
});

/** A self-signed authority. */
export async function issueAuthority(name: string): Promise<KeyPair> {
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [name] }],
    keys,
    signingAlgorithm: ALGORITHM,
    ...validity(),
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: certificate.toString('pem'), privateKey: await pemOf(keys.privateKey) };
}

/** A certificate of a new key for `subject`, signed by `authority`: good as a client's, and for its hosts as a server's. */
export async function issue(authority: KeyPair, subject: Subject): Promise<KeyPair> {
  const issuer = new X509Certificate(authority.certificate);
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const signingKey = await webcrypto.subtle.importKey(
    'pkcs8',
    createPrivateKey(authority.privateKey).export({ format: 'der', type: 'pkcs8' }),
    ALGORITHM,
    false,
    ['sign'],
  );
  const usages: ExtendedKeyUsage[] = [ExtendedKeyUsage.clientAuth];
  const extensions: Extension[] = [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    await AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    await SubjectKeyIdentifierExtension.create(keys.publicKey),
  ];
  if (subject.hosts) {
    usages.push(ExtendedKeyUsage.serverAuth);
    const names = subject.hosts.map((value) => ({ type: isIP(value) ? ('ip' as const) : ('dns' as const), value }));
    extensions.push(new SubjectAlternativeNameExtension(names));
  }
  const certificate = await X509CertificateGenerator.create({
    subject: [...(subject.group ? [{ O: [subject.group] }] : []), { CN: [subject.user] }],
    issuer: issuer.subject,
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: ALGORITHM,
    ...validity(),
    extensions: [...extensions, new ExtendedKeyUsageExtension(usages)],
  });
  return { certificate: certificate.toString('pem'), privateKey: await pemOf(keys.privateKey) };
}

async function pemOf(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key));
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    .export({ format: 'pem', type: 'pkcs8' })
    .toString();
}
