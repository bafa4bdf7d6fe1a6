import { setImmediate as turn } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createRingDesk, type Seat, withSecret } from './ring.ts';
import { Refusal } from './tokens.ts';

interface World {
  seats: Map<string, Seat>;
  joins: string[];
}

const it = suite<World>('ring desk');

it.before.each((world) => {
  Object.assign(world, { seats: new Map(), joins: [] });
});

const pod = (uid: string) => ({ namespace: 'n', podName: uid, podUid: uid });
const MEMBERS = [{ rank: 0, pod: 'a', address: '10.0.0.1' }];
const seat = (generation?: number, key = 'n/a'): Seat => ({
  key,
  jobUid: 'j',
  membership: generation === undefined ? undefined : { generation, rank: 0, members: MEMBERS },
});
const NEVER = new AbortController().signal;
const open = ({ seats, joins }: World, pollSeconds?: number) =>
  createRingDesk({ seatOf: ({ podUid }) => seats.get(podUid)!, onJoin: (key) => joins.push(key), pollSeconds });

it('gives a newer ring at once, and counts nobody as asking', async (world) => {
  world.seats.set('a', seat(3));
  const desk = open(world);
  assert.is((await desk.join(pod('a'), 2, NEVER))?.ring.generation, 3);
  assert.equal([world.joins, [...desk.joined('n/a')]], [[], []]);
});

it('holds a request until there is a newer ring', async (world) => {
  world.seats.set('a', seat(3));
  const desk = open(world);
  const asked = desk.join(pod('a'), 3, NEVER);
  assert.equal([world.joins, [...desk.joined('n/a')], [...desk.joined('n/b')]], [['n/a'], ['a'], []]);
  desk.look('n/a');
  assert.equal([...desk.joined('n/a')], ['a'], 'nothing new yet');
  world.seats.set('a', seat(4));
  desk.look('n/b');
  assert.equal([...desk.joined('n/a')], ['a'], 'another job changed');
  desk.look('n/a');
  assert.is((await asked)?.ring.generation, 4);
  assert.equal([...desk.joined('n/a')], []);
});

it('asks to come again after its time, and no longer counts who has gone', async (world) => {
  world.seats.set('a', seat()).set('b', seat());
  assert.is(await open(world, 0.02).join(pod('a'), 0, NEVER), undefined);
  const desk = open(world);
  const gone = new AbortController();
  const asked = desk.join(pod('b'), 0, gone.signal);
  gone.abort();
  assert.equal([...desk.joined('n/a')], []);
  assert.is(await asked, undefined);
});

it('counts a pod once, by its latest request', async (world) => {
  world.seats.set('a', seat());
  const desk = open(world);
  const first = desk.join(pod('a'), 0, NEVER);
  const second = desk.join(pod('a'), 0, NEVER);
  assert.is(await Promise.race([first, turn('held')]), undefined);
  assert.equal([...desk.joined('n/a')], ['a']);
  world.seats.set('a', seat(1));
  desk.look('n/a');
  assert.is((await second)?.ring.generation, 1);
});

it('refuses a pod that belongs nowhere, also when it waits already', async (world) => {
  const refused: Seat = { refused: { status: 403, reason: 'FormerAttempt', message: 'over' } };
  world.seats.set('a', seat()).set('b', refused);
  const desk = open(world);
  assert.throws(() => desk.present(pod('b'), 0), 'over');
  const asked = desk.join(pod('a'), 0, NEVER).catch((error) => error);
  world.seats.set('a', refused);
  desk.look('n/a');
  await turn();
  const error = await asked;
  assert.ok(error instanceof Refusal);
  assert.equal([error.status, error.reason, [...desk.joined('n/a')]], [403, 'FormerAttempt', []]);
});

it('derives another secret of each generation, each job and each key, and always the same', () => {
  const ring = (generation: number) => ({ generation, rank: 0, members: MEMBERS });
  const keys = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
  const secret = (generation: number, jobUid: string, key: number) =>
    withSecret({ ring: ring(generation), jobUid }, keys[key]).secret;
  const secrets = [secret(1, 'j', 0), secret(2, 'j', 0), secret(1, 'k', 0), secret(1, 'j', 1)];
  assert.is(new Set(secrets).size, 4);
  assert.is(secret(1, 'j', 0), secrets[0]);
  assert.is(Buffer.from(secrets[0], 'base64').length, 32);
});

it.run();
