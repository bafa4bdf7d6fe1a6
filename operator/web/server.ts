/** The operator's two listeners: the intake over TLS, and health and metrics in plain HTTP. */
import { createServer as createHttpServer, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import express from 'express';
import type { Progress } from '../../trainer-image/contract.ts';
import type { Client } from '../kube/client.ts';
import type { Logger } from '../log.ts';
import { loadAuthority } from './authority.ts';
import { issueLeaf, type KeyPair, renewals, validityOf } from './certificates.ts';
import { type IntakeOptions, intake, type Reporter } from './intake.ts';
import type { OperatorMetrics } from './metrics.ts';
import type { RingDesk } from './ring.ts';
import { tokenVerifier } from './tokens.ts';

export interface WebOptions {
  client: Client;
  /** Namespace of the Secret with the authority. */
  namespace: string;
  /** Address to bind; also in the certificate. */
  address: string;
  /** Names and addresses under which workers reach the intake, besides those of its Service. */
  hosts: string[];
  /** 0: any free port. */
  intakePort: number;
  healthPort: number;
  /** Whether the caches are synced. */
  ready: () => boolean;
  findPod: IntakeOptions['findPod'];
  onProgress: (reporter: Reporter, progress: Progress) => void;
  rings: RingDesk;
  leading?: IntakeOptions['leading'];
  forward?: IntakeOptions['forward'];
  metrics: OperatorMetrics;
  log: Logger;
}

export interface Web {
  /** PEM of the authority, which pods are given. */
  caPem: string;
  intakePort: number;
  close(): Promise<void>;
}

/** Often enough for the shortest of certificates' lives. */
const RENEWAL_CHECK = 3_600_000;
const SERVICE = 'fovea-operator';

export async function startWeb(options: WebOptions): Promise<Web> {
  const { client, namespace, address, log } = options;
  const ends = ['', `.${namespace}`, `.${namespace}.svc`, `.${namespace}.svc.cluster.local`];
  const own = [...ends.map((end) => SERVICE + end), address, '127.0.0.1', 'localhost'];
  const hosts = [...new Set([...own, ...options.hosts])];
  let authority = await loadAuthority(client, namespace, Date.now());
  let leaf = await issueLeaf(Date.now(), authority, hosts);
  const context = (pair: KeyPair) => ({ cert: pair.certificate, key: pair.privateKey });

  const verify = tokenVerifier(client);
  const intakeServer = createTlsServer(
    { ...context(leaf), minVersion: 'TLSv1.2' },
    intake({
      verify,
      findPod: options.findPod,
      onProgress: options.onProgress,
      rings: options.rings,
      ringKey: authority.ringKey,
      leading: options.leading,
      forward: options.forward,
    }),
  );
  const renewal = setInterval(async () => {
    try {
      const due = renewals(Date.now(), validityOf(authority.certificate), validityOf(leaf.certificate));
      if (due.authority !== 'keep') authority = await loadAuthority(client, namespace, Date.now());
      if (due.leaf === 'keep') return;
      leaf = await issueLeaf(Date.now(), authority, hosts);
      intakeServer.setSecureContext(context(leaf)); // connections stay
    } catch (error) {
      log.warn({ error }, 'the intake’s certificate was not renewed; tried again in an hour');
    }
  }, RENEWAL_CHECK);
  renewal.unref();

  const health = express();
  health.disable('x-powered-by');
  health.get('/healthz', (_request, response) => void response.type('text').send('ok\n'));
  health.get('/readyz', (_request, response) => {
    const ready = options.ready();
    response
      .status(ready ? 200 : 503)
      .type('text')
      .send(ready ? 'ok\n' : 'caches are not synced\n');
  });
  health.get('/metrics', async (_request, response) => {
    response.type(options.metrics.registry.contentType).send(await options.metrics.registry.metrics());
  });
  const healthServer = createHttpServer(health);

  await listen(intakeServer, options.intakePort, address);
  await listen(healthServer, options.healthPort, address);
  return {
    get caPem() {
      return authority.certificate;
    },
    intakePort: (intakeServer.address() as AddressInfo).port,
    close: async () => {
      clearInterval(renewal);
      await Promise.all([intakeServer, healthServer].map(close));
    },
  };
}

function listen(server: Server, port: number, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, address, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
