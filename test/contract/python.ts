/**
 * The Python that tests hold our files and our server against: a virtual environment in the XDG cache with pinned packages,
 * made when it is first needed and found by its list of pins ever after.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { homedir } from 'node:os';
import { join } from 'node:path';

const PINS = ['numpy==2.4.6', 'onnx==1.23.2', 'onnxruntime==1.32.0', 'tritonclient[http]==2.73.0'];

/**
 * Two test files may need it at once: the lock is the kernel's, so that it ends with its holder; the rename at the end is what
 * makes an environment exist. (It may be moved: nothing calls its scripts, only `bin/python`.)
 */
const SETUP = `
import fcntl, os, shutil, subprocess, sys, venv
target, pins = sys.argv[1], sys.argv[2:]
os.makedirs(os.path.dirname(target), exist_ok=True)
with open(target + '.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not os.path.isdir(target):
        aside = target + '.new'
        shutil.rmtree(aside, ignore_errors=True)
        venv.create(aside, with_pip=True)
        subprocess.run([aside + '/bin/python', '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', *pins],
                       check=True, stdout=sys.stderr)
        os.rename(aside, target)
`;

export interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

function run(program: string, args: readonly string[]): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => (stdout += chunk));
    child.stderr.on('data', (chunk) => (stderr += chunk));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** The environment's interpreter, or why there is none on this machine. */
export async function findPython(): Promise<{ python: string } | { missing: string }> {
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  const key = createHash('sha256').update(PINS.join('\n')).digest('hex').slice(0, 12);
  const target = join(cache, 'fovea', `python-${key}`);
  const probe = await run('python3', ['-c', 'import venv, ensurepip']).catch((error: Error) => error);
  if (probe instanceof Error) return { missing: `no python3 (${probe.message}); install python3 and python3-venv` };
  if (probe.code !== 0) return { missing: 'python3 has no venv or pip; install python3-venv and python3-pip' };
  const made = await run('python3', ['-c', SETUP, target, ...PINS]);
  if (made.code !== 0) {
    const last = made.stderr.trim().split('\n').at(-1);
    return { missing: `the Python packages ${PINS.join(', ')} could not be installed: ${last}` };
  }
  return { python: join(target, 'bin', 'python') };
}

/**
 * Runs a Python program and gives what it printed as its last line, parsed as JSON.
 * @throws Error with what the program wrote on standard error, if it failed.
 */
export async function runPython(python: string, program: string, args: readonly string[] = []): Promise<unknown> {
  const { code, stdout, stderr } = await run(python, ['-c', program, ...args]);
  if (code !== 0) throw new Error(`the Python program exited with ${code}:\n${stderr}`);
  return JSON.parse(stdout.trim().split('\n').at(-1)!);
}
