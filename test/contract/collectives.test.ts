// timeout: 120
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeHeader, KIND } from '../../trainer-image/collectives/frames.ts';
import { greet, welcome } from '../../trainer-image/collectives/handshake.ts';
import { type Collective, openRing, RingBroken, type RingMember } from '../../trainer-image/collectives/index.ts';

const it = suite('collectives');
const PORT = 17_077;
const SECRET = Buffer.alloc(32, 7);

let ring = 0;
/** Members of a ring of its own, at loopback addresses that no other test has. */
function membersOf(world: number): RingMember[] {
  ring++;
  return Array.from({ length: world }, (_, rank) => ({
    rank,
    pod: `worker-${rank}`,
    address: `127.71.${ring}.${rank + 1}`,
  }));
}

const common = { generation: 1, secret: SECRET, port: PORT, connectSeconds: 10 };

async function withRing(world: number, use: (ranks: Collective[]) => Promise<void>): Promise<void> {
  const members = membersOf(world);
  const ranks = await Promise.all(members.map(({ rank }) => openRing({ ...common, rank, members })));
  try {
    await use(ranks);
  } finally {
    await Promise.all(ranks.map((rank) => rank.close()));
  }
}

/** Numbers of which each sum in float32 depends on its order. */
const fill = (values: Float32Array, rank: number) => {
  for (let i = 0; i < values.length; i++) values[i] = Math.sin(i * 0.7 + rank * 1.3) * 10 ** ((i + rank) % 5);
};

async function brokenBy(work: Promise<unknown>): Promise<RingBroken> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  assert.instance(error, RingBroken);
  return error as RingBroken;
}

for (const world of [1, 2, 3, 5, 8]) {
  it(`sums over ${world} ranks, to the same bits at every rank, whatever the length`, () =>
    withRing(world, async (ranks) => {
      for (const length of [1, 2, world, 7, 1000, 200_003]) {
        const arrays = ranks.map((rank) => {
          const values = rank.allocate(length);
          fill(values, rank.rank);
          rank.reduce(values, 0, length);
          return values;
        });
        await Promise.all(ranks.map((rank) => rank.reduced()));
        const expected = new Float64Array(length);
        for (let r = 0; r < world; r++) {
          const part = new Float32Array(length);
          fill(part, r);
          for (let i = 0; i < length; i++) expected[i]! += part[i]!;
        }
        for (const values of arrays) {
          assert.is(Buffer.compare(Buffer.from(values.buffer), Buffer.from(arrays[0]!.buffer)), 0);
          for (let i = 0; i < length; i++) {
            const error = Math.abs(values[i]! - expected[i]!);
            assert.ok(error <= 1e-6 * world * 1e4, `element ${i}: ${values[i]} instead of ${expected[i]}`);
          }
        }
      }
    }));

  it(`broadcasts from each of ${world} ranks, gathers and meets at a barrier`, () =>
    withRing(world, async (ranks) => {
      for (let root = 0; root < world; root++) {
        for (const length of [0, 5, 700_001]) {
          const bytes = Uint8Array.from({ length }, (_, i) => (i * 31 + root) % 251);
          const got = await Promise.all(ranks.map((r) => r.broadcast(r.rank === root ? bytes : undefined, root)));
          for (const copy of got) assert.is(Buffer.compare(copy, bytes), 0);
        }
      }
      const gathered = await Promise.all(ranks.map((r) => r.allGather(Buffer.from('x'.repeat(r.rank)))));
      for (const all of gathered)
        assert.equal(
          all.map((bytes) => bytes.length),
          ranks.map((r) => r.rank),
        );
      await Promise.all(ranks.map((r) => r.barrier()));
    }));
}

it('holds no rank at a barrier that all but one have left', () =>
  withRing(3, async (ranks) => {
    let last = false;
    const early = ranks.slice(0, 2).map((rank) => rank.barrier().then(() => assert.ok(last)));
    // A round trip of another kind would not be in order, so time passes on the event loop alone.
    await new Promise(setImmediate);
    last = true;
    await Promise.all([...early, ranks[2]!.barrier()]);
  }));

it('gives the same bits in every run, and when parts are reduced while others wait', async () => {
  const sum = async () => {
    let bits = '';
    await withRing(3, async (ranks) => {
      const arrays = ranks.map((rank) => {
        const values = rank.allocate(90_000);
        fill(values, rank.rank);
        for (const [start, end] of [
          [0, 40_000],
          [40_000, 40_001],
          [40_001, 90_000],
        ] as const) {
          rank.reduce(values, start, end);
        }
        return values;
      });
      await Promise.all(ranks.map((rank) => rank.reduced()));
      bits = Buffer.from(arrays[2]!.buffer).toString('base64');
    });
    return bits;
  };
  assert.is(await sum(), await sum());
});

it('refuses a peer of another generation, one with another secret, and a plain client, and lets the right one in', async () => {
  const members = membersOf(2);
  const first = openRing({ ...common, rank: 0, members });
  const stranger = createConnection({ host: members[0]!.address, port: PORT });
  stranger.on('error', () => {});
  stranger.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
  const brief = { ...common, rank: 1, members, connectSeconds: 1 };
  assert.is((await brokenBy(openRing({ ...brief, generation: 2 }))).peer?.pod, 'worker-0');
  assert.is((await brokenBy(openRing({ ...brief, secret: Buffer.alloc(32, 8) }))).peer?.pod, 'worker-0');
  const ranks = await Promise.all([first, openRing({ ...common, rank: 1, members })]);
  await Promise.all(ranks.map((rank) => rank.barrier()));
  await Promise.all(ranks.map((rank) => rank.close()));
  stranger.destroy();
});

it('names the member that never comes', async () => {
  const members = membersOf(2);
  const error = await brokenBy(openRing({ ...common, rank: 0, members, connectSeconds: 0.5 }));
  assert.is(error.peer?.pod, 'worker-1');
  assert.match(error.message, /rank 1 \(pod worker-1\)/);
});

it('ends every pending sum when a rank leaves in the middle, at all ranks', () =>
  withRing(3, async (ranks) => {
    const pending = ranks.slice(0, 2).map((rank) => {
      const values = rank.allocate(100_000);
      rank.reduce(values, 0, values.length);
      return brokenBy(rank.reduced());
    });
    await ranks[2]!.close();
    await Promise.all(pending);
    for (const rank of ranks) await brokenBy(rank.barrier());
  }));

for (const length of [1000, 4_000_000]) {
  it(`names the rank that left in the middle of a sum of ${length}, also where nothing connects to it`, () =>
    withRing(5, async (ranks) => {
      const pending = [0, 1, 3, 4].map((rank) => {
        const values = ranks[rank]!.allocate(length);
        ranks[rank]!.reduce(values, 0, length);
        return brokenBy(ranks[rank]!.reduced());
      });
      await ranks[2]!.close();
      for (const { peer, message } of await Promise.all(pending)) assert.is(peer?.pod, 'worker-2', message);
    }));
}

it('lets the rightful peer in past many who say nothing', async () => {
  const members = membersOf(2);
  const first = openRing({ ...common, rank: 0, members });
  const silent: Socket[] = [];
  while (silent.length < 40) {
    const socket = createConnection({ host: members[0]!.address, port: PORT });
    socket.on('error', () => {});
    const reached = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    if (reached) silent.push(socket);
  }
  // Less than a silent one may stay.
  const second = openRing({ ...common, rank: 1, members, connectSeconds: 3 });
  await Promise.all((await Promise.all([first, second])).map((rank) => rank.close()));
  for (const socket of silent) socket.destroy();
});

it('blocks for a sum, and names the peer that left meanwhile', async () => {
  const members = membersOf(2);
  // One process cannot block on itself: rank 1 is another.
  const child = fork(new URL('./collectives-peer.ts', import.meta.url), { stdio: 'inherit' });
  child.send({ ...common, secret: [...SECRET], rank: 1, members });
  const honest = await openRing({ ...common, rank: 0, members });
  const values = honest.allocate(1000);
  values.fill(1);
  honest.reduceNow(values);
  assert.is(values[999], 3);
  let error: unknown;
  try {
    honest.reduceNow(values);
  } catch (thrown) {
    error = thrown;
  }
  assert.instance(error, RingBroken);
  assert.is((error as RingBroken).peer?.pod, 'worker-1');
  await honest.close();
});

it('ends with a fault when ranks ask for different sums', () =>
  withRing(2, async ([a, b]) => {
    a!.reduce(a!.allocate(100), 0, 100);
    b!.reduce(b!.allocate(90), 0, 90);
    await Promise.all([brokenBy(a!.reduced()), brokenBy(b!.reduced())]);
  }));

/** Rank 0 of two, and a rank 1 that knows the secret and then says what the test wants. */
async function withFalsePeer(use: (honest: Collective, to: Socket) => Promise<void>): Promise<void> {
  const members = membersOf(2);
  const parties = { generation: 1, secret: SECRET };
  const listener = createServer((socket) => {
    socket.on('error', () => {});
    // The meeting: rank 0 hears that all have come.
    welcome(socket, { ...parties, dialer: 0, listener: 1 }).then(() => {
      socket.write(encodeHeader({ kind: KIND.GATHER, operation: 1, step: 0, offset: 0, length: 0 }));
      met.resolve(socket);
    }, met.reject);
  });
  const met = Promise.withResolvers<Socket>();
  listener.listen(PORT, members[1]!.address);
  await once(listener, 'listening');
  const opening = openRing({ ...common, rank: 0, members, silenceSeconds: 1 });
  const reach = async (): Promise<Socket> => {
    const dialer = createConnection({ host: members[0]!.address, port: PORT });
    try {
      await once(dialer, 'connect');
      await greet(dialer, { ...parties, dialer: 1, listener: 0 });
      return dialer;
    } catch {
      dialer.destroy();
      return reach();
    }
  };
  const dialer = await reach();
  dialer.on('error', () => {}).resume();
  const socket = await met.promise;
  const honest = await opening;
  try {
    await use(honest, socket);
  } finally {
    await honest.close();
    dialer.destroy();
    socket.destroy();
    listener.close();
  }
}

const falsehoods: Record<string, (socket: Socket) => void> = {
  'says garbage': (socket) => socket.write('this is no frame of a ring, whatever it may look like'),
  'sends half a message and is silent': (socket) => {
    socket.write(encodeHeader({ kind: KIND.REDUCE, operation: 2, step: 0, offset: 0, length: 200 }));
    socket.write(Buffer.alloc(100));
  },
  'sends half a message and leaves': (socket) => {
    socket.write(encodeHeader({ kind: KIND.REDUCE, operation: 2, step: 0, offset: 0, length: 200 }));
    socket.end(Buffer.alloc(100));
  },
  'sends more than is due': (socket) => {
    socket.write(encodeHeader({ kind: KIND.REDUCE, operation: 2, step: 0, offset: 0, length: 4000 }));
  },
  'is ahead of what can be': (socket) => {
    socket.write(encodeHeader({ kind: KIND.REDUCE, operation: 9, step: 0, offset: 0, length: 200 }));
  },
  'falls silent': () => {},
};
for (const [what, say] of Object.entries(falsehoods)) {
  it(`names a peer that ${what}, and does not believe it`, () =>
    withFalsePeer(async (honest, socket) => {
      const values = honest.allocate(100);
      values.fill(1);
      honest.reduce(values, 0, 100);
      say(socket);
      const error = await brokenBy(honest.reduced());
      assert.is(error.peer?.pod, 'worker-1', error.message);
      await brokenBy(honest.barrier());
    }));
}

it('refuses memory that is not shared, parts that are not there and roots that do not exist', () =>
  withRing(2, async ([a]) => {
    assert.throws(() => a!.reduce(new Float32Array(3), 0, 3), /allocate/);
    assert.throws(() => a!.reduce(a!.allocate(3), 0, 4), /\[0, 4\)/);
    assert.instance(await a!.broadcast(undefined, 2).catch((error: unknown) => error), RangeError);
  }));

it.run();
