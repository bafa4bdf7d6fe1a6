/** What the API server's audit log says of who wrote what, and when. */
import { readFile } from 'node:fs/promises';

/** Logs all writes, and of Leases what was written. */
export const WRITES_POLICY = JSON.stringify({
  apiVersion: 'audit.k8s.io/v1',
  kind: 'Policy',
  omitStages: ['RequestReceived', 'ResponseStarted'],
  rules: [
    { level: 'None', verbs: ['get', 'list', 'watch'] },
    { level: 'Request', resources: [{ group: 'coordination.k8s.io', resources: ['leases'] }] },
    { level: 'Metadata' },
  ],
});

/** One write that the server took. Times in ms since 1970, both of the server's clock. */
export interface Write {
  verb: string;
  resource: string;
  name: string;
  userAgent: string;
  received: number;
  answered: number;
  /** Of a Lease: who holds it from now on; '' is nobody. */
  holder?: string;
}

/** All writes that were taken, in the order in which they were received. */
export async function writesIn(auditLog: string): Promise<Write[]> {
  const lines = (await readFile(auditLog, 'utf8')).split('\n');
  // The last one may be half written.
  const events = lines.slice(0, -1).map((line) => JSON.parse(line));
  return events
    .filter(({ responseStatus }) => responseStatus?.code < 300)
    .map((event) => ({
      verb: event.verb,
      resource: [event.objectRef?.resource, event.objectRef?.subresource].filter(Boolean).join('/'),
      name: event.objectRef?.name ?? '',
      userAgent: event.userAgent ?? '',
      received: Date.parse(event.requestReceivedTimestamp),
      answered: Date.parse(event.stageTimestamp),
      ...(event.objectRef?.resource === 'leases' && { holder: event.requestObject?.spec?.holderIdentity ?? '' }),
    }))
    .sort((a, b) => a.received - b.received);
}

/** Changes of who holds the Lease `name`: first writes of a new holder, and releases. */
export function changesOf(writes: readonly Write[], name: string): Write[] {
  const ofLease = writes.filter((write) => write.holder !== undefined && write.name === name);
  return ofLease.filter((write, i) => write.holder !== ofLease[i - 1]?.holder);
}
