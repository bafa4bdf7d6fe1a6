import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { INTAKE_AUDIENCE, type Progress, Ring } from '../../trainer-image/contract.ts';
import { type Forwarded, type IntakeOptions, intake, type Reporter } from './intake.ts';
import { createRingDesk, type Seat } from './ring.ts';
import { tokenVerifier } from './tokens.ts';

const ISSUER = 'https://kubernetes.default.svc';
const PROGRESS: Progress = { stage: 'training', percent: 40, epoch: 1, epochs: 2, step: 7 };

/** A key of an API server, which signs tokens and publishes itself. */
async function signer(kid: string) {
  const { privateKey, publicKey } = await generateKeyPair('RS256');
  const jwk: JWK = { ...(await exportJWK(publicKey)), kid, alg: 'RS256', use: 'sig' };
  const token = (change: { pod?: object | null; audience?: string; issuer?: string; expires?: string } = {}) =>
    new SignJWT({
      'kubernetes.io': {
        namespace: 'n',
        ...(change.pod === null ? {} : { pod: { name: 'p', uid: 'u1', ...change.pod } }),
      },
    })
      .setProtectedHeader({ alg: 'RS256', kid })
      .setIssuer(change.issuer ?? ISSUER)
      .setAudience(change.audience ?? INTAKE_AUDIENCE)
      .setExpirationTime(change.expires ?? '1h')
      .sign(privateKey);
  return { jwk, token };
}

interface World {
  /** Where the pod sits, as the ring desk is told. */
  seat: Seat;
  leading: boolean;
  forward: IntakeOptions['forward'];
  forwarded: Omit<Forwarded, 'signal'>[];
  server: Server;
  url: string;
  published: JWK[];
  reads: number;
  clock: number;
  reports: [Reporter, Progress][];
  key: Awaited<ReturnType<typeof signer>>;
}

const it = suite<World>('intake');

it.before(async (world) => {
  world.key = await signer('k1');
});
it.before.each(async (world) => {
  const seat: Seat = { key: 'n/a', jobUid: 'j', membership: undefined };
  const forward: IntakeOptions['forward'] = async ({ signal: _, ...request }) => {
    world.forwarded.push(request);
    return { status: 404, body: '{"reason":"FromLeader"}' };
  };
  Object.assign(world, { seat, leading: true, forward, forwarded: [] });
  Object.assign(world, { published: [world.key.jwk], reads: 0, clock: Date.now(), reports: [] });
  const raw = async (path: string) => {
    if (path === '/.well-known/openid-configuration') return { issuer: ISSUER };
    world.reads += 1;
    if (world.published.length === 0) throw new Error('connect ECONNREFUSED');
    return { keys: [...world.published] };
  };
  const app = intake({
    verify: tokenVerifier({ raw }, () => world.clock),
    findPod: (namespace, name) =>
      namespace === 'n' && name === 'p' ? { uid: 'u1', labels: { 'fovea.dev/trainingjob': 'a' } } : undefined,
    onProgress: (reporter, progress) => world.reports.push([reporter, progress]),
    rings: createRingDesk({
      seatOf: () => world.seat,
      onJoin: () => {},
      pollSeconds: 0.02,
    }),
    ringKey: new Uint8Array(32),
    leading: () => world.leading,
    forward: (request) => world.forward!(request),
  });
  world.server = app.listen(0, '127.0.0.1');
  await once(world.server, 'listening');
  world.url = `http://127.0.0.1:${(world.server.address() as AddressInfo).port}/v1/progress`;
});
it.after.each(({ server }) => {
  server.close();
  server.closeAllConnections();
});

/** Status and reason of the answer. */
async function post({ url }: World, token: string | undefined, body: string = JSON.stringify(PROGRESS)) {
  const response = await fetch(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    body,
  });
  const text = await response.text();
  return [response.status, text === '' ? undefined : JSON.parse(text).reason];
}

it('takes the progress of a pod that is watched, and says whose it is', async (world) => {
  assert.equal(await post(world, await world.key.token()), [204, undefined]);
  const reporter = { namespace: 'n', podName: 'p', podUid: 'u1', labels: { 'fovea.dev/trainingjob': 'a' } };
  assert.equal(world.reports, [[reporter, PROGRESS]]);
});

it('refuses tokens that are absent, rubbish, expired, for another audience or of another issuer', async (world) => {
  const { token } = world.key;
  const table: [string | undefined, string][] = [
    [undefined, 'NoToken'],
    ['rubbish', 'BadToken'],
    [await token({ expires: '-1m' }), 'TokenExpired'],
    [await token({ audience: 'api' }), 'WrongClaim'],
    [await token({ issuer: 'https://elsewhere' }), 'WrongClaim'],
  ];
  for (const [given, reason] of table) assert.equal(await post(world, given), [401, reason]);
  assert.equal(world.reports, []);
});

it('refuses a token signed by somebody else, even under the name of a published key', async (world) => {
  const forger = await signer('k1');
  assert.equal(await post(world, await forger.token()), [401, 'BadToken']);
});

it('refuses a token that no key signs', async (world) => {
  const [, payload] = (await world.key.token()).split('.');
  const none = Buffer.from('{"alg":"none"}').toString('base64url');
  assert.equal(await post(world, `${none}.${payload}.`), [401, 'BadToken']);
});

it('refuses the token of a former pod of the same name, and one that is bound to no pod', async (world) => {
  assert.equal(await post(world, await world.key.token({ pod: { uid: 'u0' } })), [403, 'OtherPod']);
  assert.equal(await post(world, await world.key.token({ pod: null })), [403, 'NotAPod']);
});

it('does not know a pod that is not watched', async (world) => {
  assert.equal(await post(world, await world.key.token({ pod: { name: 'q' } })), [404, 'UnknownPod']);
});

it('refuses a body that is too large, no JSON or no progress, and says why', async (world) => {
  const token = await world.key.token();
  assert.equal(await post(world, token, JSON.stringify({ ...PROGRESS, stage: 'x'.repeat(70_000) })), [
    413,
    'BodyTooLarge',
  ]);
  assert.equal(await post(world, token, '{'), [400, 'BadBody']);
  assert.equal(await post(world, token, JSON.stringify({ ...PROGRESS, percent: 101 })), [400, 'BadProgress']);
  assert.equal(await post(world, token, JSON.stringify({ ...PROGRESS, job: 'other' })), [400, 'BadProgress']);
  assert.equal(world.reports, []);
});

it('reads no body of a stranger', async (world) => {
  assert.equal(await post(world, undefined, 'x'.repeat(70_000)), [401, 'NoToken']);
});

const ringOf = (world: World) => ({ ...world, url: world.url.replace('progress', 'ring') }) as World;

it('gives a ring with its secret, or asks to come again', async (world) => {
  const token = await world.key.token();
  assert.equal(await post(ringOf(world), token, '{"after":0}'), [204, undefined]);
  assert.equal(await post(ringOf(world), token, '{"after":-1}'), [400, 'BadRingRequest']);
  assert.equal(await post(ringOf(world), undefined, '{"after":0}'), [401, 'NoToken']);
  const members = [{ rank: 0, pod: 'p', address: '10.0.0.1' }];
  world.seat = { key: 'n/a', jobUid: 'j', membership: { generation: 3, rank: 0, members } };
  const response = await fetch(ringOf(world).url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
    body: '{"after":2}',
  });
  const { secret, ...ring } = Ring.parse(await response.json());
  assert.equal([response.status, ring], [200, { generation: 3, rank: 0, members }]);
  assert.is(Buffer.from(secret, 'base64').length, 32);
});

it('passes progress and requests for a new ring on to the leader, and its answer back', async (world) => {
  world.leading = false;
  const token = await world.key.token();
  const authorization = `Bearer ${token}`;
  assert.equal(await post(world, token), [404, 'FromLeader']);
  assert.equal(await post(ringOf(world), token, '{"after":2}'), [404, 'FromLeader']);
  assert.equal(world.forwarded, [
    { path: '/v1/progress', authorization, body: JSON.stringify(PROGRESS) },
    { path: '/v1/ring', authorization, body: '{"after":2}' },
  ]);
  assert.equal(world.reports, []);
});

it('gives a ring that there is without asking the leader, and passes nothing on for a stranger', async (world) => {
  world.leading = false;
  const membership = { generation: 3, rank: 0, members: [{ rank: 0, pod: 'p', address: '10.0.0.1' }] };
  world.seat = { key: 'n/a', jobUid: 'j', membership };
  assert.is((await post(ringOf(world), await world.key.token(), '{"after":2}'))[0], 200);
  assert.equal(await post(ringOf(world), undefined, '{"after":3}'), [401, 'NoToken']);
  assert.equal(world.forwarded, []);
});

it('says that nobody can be asked while the leader is away', async (world) => {
  world.leading = false;
  world.forward = async () => {
    throw new Error('connect ECONNREFUSED');
  };
  assert.equal(await post(world, await world.key.token()), [503, 'NoLeader']);
});

it('has nothing else', async (world) => {
  const response = await fetch(world.url.replace('progress', 'other'));
  assert.is(response.status, 404);
});

it('reads the keys again for one it does not know, at most every half minute whoever asks', async (world) => {
  assert.equal(await post(world, await world.key.token()), [204, undefined]);
  const next = await signer('k2');
  world.published.push(next.jwk);
  assert.equal(await post(world, await next.token()), [401, 'BadToken']);
  assert.is(world.reads, 1);
  world.clock += 30_000;
  assert.equal(await post(world, await next.token()), [204, undefined]);
  assert.is(world.reads, 2);
});

it('asks to come again while the keys cannot be read', async (world) => {
  world.published.length = 0;
  assert.equal(await post(world, await world.key.token()), [503, 'KeysUnavailable']);
  world.published.push(world.key.jwk);
  assert.equal(await post(world, await world.key.token()), [204, undefined]);
});

it.run();
