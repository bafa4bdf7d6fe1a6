/** Which API server, and who we are to it: a kubeconfig or the pod's service account, read again while the program runs. */
import { accessSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { delimiter, dirname, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { KubeConfig, type User } from '@kubernetes/client-node';
import { Agent, type Dispatcher, ProxyAgent } from 'undici';
import { parse } from 'yaml';

const SERVICE_ACCOUNT_TOKEN = '/var/run/secrets/kubernetes.io/serviceaccount/token';
/** Tokens and certificates are rotated well before they end, so that a copy this old (ms) is still good. */
const REFRESH = 30_000;

/**
 * The kubeconfig at `file`; without one $KUBECONFIG, then the pod's service account, then ~/.kube/config. (The service account
 * comes before the home directory, as in controller-runtime: a pod must not act as whoever's home it happens to see.)
 */
export function loadConfig(file?: string): KubeConfig {
  const config = new KubeConfig();
  const files = file ? [file] : (process.env.KUBECONFIG?.split(delimiter).filter((path) => path !== '') ?? []);
  if (file) config.loadFromFile(file);
  else if (!process.env.KUBECONFIG && process.env.KUBERNETES_SERVICE_HOST && exists(SERVICE_ACCOUNT_TOKEN)) {
    config.loadFromCluster();
  } else config.loadFromDefault();
  config.users = config.users.map((user) => ({ ...user, ...tokenFileOf(user.name, files) }));
  return config;
}

/**
 * A user's `tokenFile` in the first of the kubeconfigs that names the user, as what client-node reads again and again. By
 * itself client-node passes the field over, and the user would be nobody.
 */
function tokenFileOf(name: string, files: readonly string[]): Partial<User> {
  for (const file of files.filter(exists)) {
    const { users } = (parse(readFileSync(file, 'utf8')) ?? {}) as {
      users?: { name?: string; user?: KubeconfigUser }[];
    };
    const found = users?.find((entry) => entry.name === name)?.user;
    if (!found) continue;
    if (found.token || !found.tokenFile) return {};
    // As kubectl has it: relative to the kubeconfig.
    return { authProvider: { name: 'tokenFile', config: { tokenFile: resolve(dirname(file), found.tokenFile) } } };
  }
  return {};
}

interface KubeconfigUser {
  token?: string;
  tokenFile?: string;
}

function exists(file: string): boolean {
  try {
    accessSync(file);
    return true;
  } catch {
    return false;
  }
}

/** A way in: connections that trust and are trusted, and the headers that say who asks. */
export interface Access {
  dispatcher: Dispatcher;
  headers: Record<string, string>;
}

export interface Credentials {
  /** URL of the API server, without a slash at the end. */
  server: string;
  /** Read again when older than half a minute. Throws what reading them threw. */
  access(): Promise<Access>;
  /** The server did not accept them: read them again for the next request. */
  refused(): void;
  close(): Promise<void>;
}

interface Tls {
  ca?: Buffer | string;
  cert?: Buffer | string;
  key?: Buffer | string;
  servername?: string;
  rejectUnauthorized?: boolean;
}

/** @throws Error if the kubeconfig's current context names no cluster */
export function credentialsOf(config: KubeConfig): Credentials {
  const cluster = config.getCurrentCluster();
  if (!cluster?.server) {
    throw new Error(
      `the kubeconfig's context ${JSON.stringify(config.getCurrentContext() ?? '')} names no cluster: set KUBECONFIG, or run in a pod with a service account`,
    );
  }
  let tls: Tls | undefined;
  let dispatcher: Dispatcher | undefined;
  let current: Promise<Access> | undefined;
  let readAt = 0;

  async function read(): Promise<Access> {
    const found: Tls & { headers?: Record<string, unknown>; auth?: string } = {};
    await config.applyToHTTPSOptions(found as never);
    const { ca, cert, key, servername, rejectUnauthorized } = found;
    const now: Tls = { ca, cert, key, servername, rejectUnauthorized: rejectUnauthorized !== false };
    if (!dispatcher || !isDeepStrictEqual(now, tls)) {
      // Requests and watches under way end on the connections they began on.
      dispatcher?.close().catch(() => {});
      dispatcher = connections(now, cluster?.proxyUrl);
      tls = now;
    }
    const token = await readToken(config);
    if (token) found.headers = { ...found.headers, authorization: `Bearer ${token}` };
    const headers = Object.fromEntries(
      Object.entries(found.headers ?? {}).map(([name, value]) => [name.toLowerCase(), String(value)]),
    );
    if (found.auth) headers.authorization ??= `Basic ${Buffer.from(found.auth).toString('base64')}`;
    return { dispatcher, headers };
  }

  return {
    server: cluster.server.replace(/\/+$/, ''),
    access() {
      if (!current || performance.now() - readAt > REFRESH) {
        readAt = performance.now();
        const reading = read();
        reading.catch(() => {
          if (current === reading) current = undefined;
        });
        current = reading;
      }
      return current;
    },
    refused() {
      current = undefined;
    },
    async close() {
      await dispatcher?.destroy();
    },
  };
}

/** client-node keeps what it read of a token's file for a minute, also when the server has refused it. */
async function readToken(config: KubeConfig): Promise<string | undefined> {
  const file: unknown = config.getCurrentUser()?.authProvider?.config?.tokenFile;
  return typeof file === 'string' ? (await readFile(file, 'utf8')).trim() : undefined;
}

function connections(tls: Tls, proxy: string | undefined): Dispatcher {
  const options = {
    connect: { ...tls, timeout: 10_000, keepAlive: true, keepAliveInitialDelay: 15_000 },
    // A connection a watch: with HTTP/2 all would share one, and stall and break together.
    allowH2: false,
    // Below the API server's 90 s, so that it is never the server that closes what we are about to use.
    keepAliveTimeout: 30_000,
    headersTimeout: 30_000,
    // A watch may be silent for long; whoever reads it decides for how long.
    bodyTimeout: 0,
  };
  if (!proxy) return new Agent(options);
  if (!/^https?:/.test(proxy)) {
    throw new Error(`the kubeconfig's proxy-url ${proxy}: only http and https proxies are supported`);
  }
  return new ProxyAgent({ ...options, uri: proxy, requestTls: options.connect });
}
