/** The operator as a process of its own, to be killed and started again. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { env, execPath } from 'node:process';

export interface OperatorSettings {
  kubeconfig: string;
  /** The one namespace it looks after. */
  namespace: string;
  /** Its own: of its Secrets and its Lease. */
  ownNamespace: string;
  /** File that its output is added to. */
  log: string;
}

export interface OperatorProcess {
  /** Resolves with how it ended. */
  ended: Promise<string>;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
}

const MAIN = join(import.meta.dirname, '../../operator/main.ts');

export function startOperator({ kubeconfig, namespace, ownNamespace, log }: OperatorSettings): OperatorProcess {
  const output = openSync(log, 'a');
  const child: ChildProcess = spawn(execPath, [MAIN], {
    stdio: ['ignore', output, output],
    env: {
      ...env,
      KUBECONFIG: kubeconfig,
      WATCH_NAMESPACES: namespace,
      OPERATOR_NAMESPACE: ownNamespace,
      INTAKE_PORT: '0',
      HEALTH_PORT: '0',
      // Written into every pod and status: the same in every run.
      FOVEA_INTAKE_URL: 'https://127.0.0.1:8443',
      FOVEA_GATEWAY_URL: 'http://gateway.invalid:8080',
      FOVEA_TRAINER_IMAGE: 'fovea/trainer:play',
      LOG_LEVEL: 'info',
    },
  });
  closeSync(output);
  const ended = once(child, 'exit').then(([code, signal]) => `${signal ?? `exit code ${code}`}`);
  return {
    ended,
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
