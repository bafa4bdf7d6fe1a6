/** Running a program to its end. */
import { spawn } from 'node:child_process';
import { constants, setPriority } from 'node:os';
import { createInterface } from 'node:readline';

export interface CommandOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Called with each line of stderr as it comes. */
  onErrorLine?: (line: string) => void;
  /** Let everything else on the machine go first. */
  background?: boolean;
}

/** Lines of output that an error message shows. */
const SHOWN_LINES = 20;

/**
 * The standard output of a program that ended well.
 *
 * @throws Error with the command and its last lines, when it can't be started or exits with another code than 0
 */
export function command(program: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: options.cwd, env: options.env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const last: string[] = [];
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
    });
    createInterface({ input: child.stderr }).on('line', (line) => {
      options.onErrorLine?.(line);
      last.push(line);
      if (last.length > SHOWN_LINES) last.shift();
    });
    const failed = (why: string) => {
      const shown = [...output.trimEnd().split('\n').slice(-SHOWN_LINES), ...last].filter(Boolean);
      reject(new Error(`${[program, ...args].join(' ')} ${why}${shown.map((line) => `\n  ${line}`).join('')}`));
    };
    child.once('error', (error) => failed(`could not be started: ${error.message}`));
    child.once('spawn', () => {
      if (options.background) setPriority(child.pid!, constants.priority.PRIORITY_BELOW_NORMAL);
    });
    child.once('close', (code, signal) =>
      code === 0 ? resolve(output) : failed(`ended with ${signal ?? `exit code ${code}`}`),
    );
  });
}
