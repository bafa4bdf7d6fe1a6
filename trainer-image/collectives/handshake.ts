/**
 * How two ranks meet: each proves by HMAC-SHA256 over both sides' nonces that it knows the secret of the generation, so neither a
 * stranger nor a worker of another generation gets in, and nothing that was overheard can be said again.
 *
 *     dialer → listener   magic, generation, its rank, nonce
 *     listener → dialer   nonce, proof
 *     dialer → listener   proof
 *     listener → dialer   welcome
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Socket } from 'node:net';

const MAGIC = Buffer.from('FOVEA/1\n');
const WELCOME = Buffer.from('\n');
const NONCE_BYTES = 32;
const PROOF_BYTES = 32;
const HELLO_BYTES = MAGIC.length + 8 + NONCE_BYTES;
/** What a stranger may take to say what it has to say, in ms. */
const PATIENCE = 5000;

export interface Parties {
  generation: number;
  secret: Uint8Array;
  dialer: number;
  listener: number;
}

function proof(side: 'dialer' | 'listener', { generation, secret, dialer, listener }: Parties, nonces: Buffer): Buffer {
  return createHmac('sha256', secret)
    .update(`fovea ring ${side} ${generation} ${dialer} ${listener}\n`)
    .update(nonces)
    .digest();
}

/** The next `length` bytes of a socket that is not read otherwise. @throws Error if it ends or takes too long */
function read(socket: Socket, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => finish(new Error('said nothing in time')), PATIENCE);
    const finish = (outcome: Buffer | Error) => {
      clearTimeout(timer);
      socket.off('readable', look);
      socket.off('close', closed);
      socket.off('error', finish);
      if (outcome instanceof Error) reject(outcome);
      else resolve(outcome);
    };
    const closed = () => finish(new Error('closed the connection before it had proved who it is'));
    const look = () => {
      const bytes: Buffer | null = socket.read(length);
      if (bytes?.length === length) finish(bytes);
      else if (bytes) finish(new Error('ended in the middle of the handshake'));
    };
    socket.on('readable', look);
    socket.on('close', closed);
    socket.on('error', finish);
    look();
  });
}

/** The dialer's part. @throws Error if the other does not prove that it is `listener` */
export async function greet(socket: Socket, parties: Parties): Promise<void> {
  const nonce = randomBytes(NONCE_BYTES);
  const numbers = Buffer.alloc(8);
  numbers.writeUInt32LE(parties.generation, 0);
  numbers.writeUInt32LE(parties.dialer, 4);
  socket.write(Buffer.concat([MAGIC, numbers, nonce]));
  const answer = await read(socket, NONCE_BYTES + PROOF_BYTES);
  const nonces = Buffer.concat([nonce, answer.subarray(0, NONCE_BYTES)]);
  if (!timingSafeEqual(answer.subarray(NONCE_BYTES), proof('listener', parties, nonces))) {
    throw new Error('does not know the secret of this generation');
  }
  socket.write(proof('dialer', parties, nonces));
  if (!(await read(socket, WELCOME.length)).equals(WELCOME)) throw new Error('did not say that this rank is welcome');
}

/** The listener's part. @throws Error if the other does not prove that it is `dialer` */
export async function welcome(socket: Socket, parties: Parties): Promise<void> {
  const hello = await read(socket, HELLO_BYTES);
  if (!hello.subarray(0, MAGIC.length).equals(MAGIC)) throw new Error('does not speak the protocol of a ring');
  const generation = hello.readUInt32LE(MAGIC.length);
  const rank = hello.readUInt32LE(MAGIC.length + 4);
  if (generation !== parties.generation) {
    throw new Error(`is of generation ${generation}, and this ring of ${parties.generation}`);
  }
  if (rank !== parties.dialer) throw new Error(`says it is rank ${rank}, where rank ${parties.dialer} is expected`);
  const nonce = randomBytes(NONCE_BYTES);
  const nonces = Buffer.concat([hello.subarray(HELLO_BYTES - NONCE_BYTES), nonce]);
  socket.write(Buffer.concat([nonce, proof('listener', parties, nonces)]));
  const answer = await read(socket, PROOF_BYTES);
  if (!timingSafeEqual(answer, proof('dialer', parties, nonces))) {
    throw new Error('does not know the secret of this generation');
  }
  socket.write(WELCOME);
}
