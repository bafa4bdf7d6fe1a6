/** Passes what only the leader can answer on to it, over TLS, with the worker's own token: the leader checks it again. */
import { Agent, request } from 'undici';
import { RING_POLL_SECONDS } from '../../trainer-image/contract.ts';
import { FORWARDED_HEADER, type IntakeOptions } from './intake.ts';

export interface ForwardOptions {
  /** Where the leader's intake is, `https://address:port`; undefined while there is none, or we are it. */
  leader: () => string | undefined;
  /** PEM of the authority that its certificate must be of. */
  ca: () => string;
}

/** ms for the leader to be there: whoever asks may ask another replica meanwhile. */
const CONNECT = 2_000;
/** ms for its answer, longer than it holds a request. */
const ANSWER = (RING_POLL_SECONDS + 10) * 1000;

/** `forward` rejects where no answer came. */
export function forwarder({ leader, ca }: ForwardOptions): {
  forward: NonNullable<IntakeOptions['forward']>;
  close(): Promise<void>;
} {
  let connections: { ca: string; agent: Agent } | undefined;

  function agentFor(authority: string): Agent {
    if (connections?.ca !== authority) {
      connections?.agent.close().catch(() => {});
      const connect = { ca: authority, timeout: CONNECT };
      connections = { ca: authority, agent: new Agent({ connect, allowH2: false, headersTimeout: ANSWER }) };
    }
    return connections.agent;
  }

  return {
    async forward({ path, authorization, body, signal }) {
      const address = leader();
      if (!address) throw new Error('nobody leads at present');
      const { statusCode, body: answer } = await request(address + path, {
        dispatcher: agentFor(ca()),
        method: 'POST',
        headers: { authorization, 'content-type': 'application/json', [FORWARDED_HEADER]: 'true' },
        body,
        signal,
      });
      return { status: statusCode, body: await answer.text() };
    },
    async close() {
      await connections?.agent.destroy();
    },
  };
}
