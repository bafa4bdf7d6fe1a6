import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkAuthority, issueAuthority, issueLeaf, LIFETIME, renewals, validityOf } from './certificates.ts';

const it = suite('certificates');
const now = Date.now();

it('asks for both where there is nothing, and to look again when the leaf nears its end', () => {
  assert.equal(renewals(now, undefined, undefined), {
    authority: 'create',
    leaf: 'issue',
    nextLook: now + LIFETIME.leaf - LIFETIME.leafRenewal,
  });
});

it('renews nothing while both are far from their end', () => {
  const plan = renewals(now, { notAfter: now + LIFETIME.authority }, { notAfter: now + LIFETIME.leafRenewal + 1000 });
  assert.equal(plan, { authority: 'keep', leaf: 'keep', nextLook: now + 1000 });
});

it('renews a leaf before its end, and also one that has ended', () => {
  const authority = { notAfter: now + LIFETIME.authority };
  for (const left of [LIFETIME.leafRenewal, 0, -LIFETIME.leaf]) {
    const plan = renewals(now, authority, { notAfter: now + left });
    assert.equal([plan.authority, plan.leaf], ['keep', 'issue'], `${left} ms left`);
  }
});

it('renews an authority a year before its end and keeps the leaf it has signed', () => {
  const plan = renewals(now, { notAfter: now + LIFETIME.authorityRenewal }, { notAfter: now + LIFETIME.leaf });
  assert.equal([plan.authority, plan.leaf], ['renew', 'keep']);
});

async function handshake(ca: string, leaf: { certificate: string; privateKey: string }, servername: string) {
  const server = createServer({ cert: leaf.certificate, key: leaf.privateKey }, (socket) => socket.end());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket: TLSSocket = connect({
    port: (server.address() as AddressInfo).port,
    host: '127.0.0.1',
    ca,
    servername,
  });
  try {
    await once(socket, 'secureConnect');
    return 'trusted';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  } finally {
    socket.destroy();
    server.close();
  }
}

it('issues a leaf that a client with the authority trusts, for its names and addresses only', async () => {
  const authority = await issueAuthority(now);
  const leaf = await issueLeaf(now, authority, ['fovea-operator.fovea-system.svc', '127.0.0.1']);
  assert.is(await handshake(authority.certificate, leaf, 'fovea-operator.fovea-system.svc'), 'trusted');
  assert.is(await handshake(authority.certificate, leaf, 'other.svc'), 'ERR_TLS_CERT_ALTNAME_INVALID');
  assert.is(new X509Certificate(leaf.certificate).checkIP('127.0.0.1'), '127.0.0.1');
  const stranger = await issueAuthority(now);
  assert.is.not(await handshake(stranger.certificate, leaf, 'fovea-operator.fovea-system.svc'), 'trusted');
});

it('renews an authority over its key, so that holders of either certificate trust leaves of either', async () => {
  const old = await issueAuthority(now - LIFETIME.authority + LIFETIME.authorityRenewal);
  const renewed = await issueAuthority(now, old);
  assert.ok(validityOf(renewed.certificate).notAfter > validityOf(old.certificate).notAfter);
  const oldLeaf = await issueLeaf(now, old, ['a.svc']);
  const newLeaf = await issueLeaf(now, renewed, ['a.svc']);
  assert.is(await handshake(old.certificate, newLeaf, 'a.svc'), 'trusted');
  assert.is(await handshake(renewed.certificate, oldLeaf, 'a.svc'), 'trusted');
});

it('refuses an authority whose key belongs to another certificate, and a leaf in its place', async () => {
  const [one, other] = [await issueAuthority(now), await issueAuthority(now)];
  assert.throws(
    () => checkAuthority({ certificate: one.certificate, privateKey: other.privateKey }),
    'its key is not that of its certificate',
  );
  const leaf = await issueLeaf(now, one, ['a.svc']);
  assert.throws(() => checkAuthority(leaf), 'its certificate is not that of an authority');
  assert.is(checkAuthority(one), one);
});

it.run();
