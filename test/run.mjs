/**
 * `npm test [-- tier ... filter ...]`: sets the machine up, verifies the code, runs every tier that this machine can run.
 * Plain JavaScript that Node 20 can start: what it calls runs under the project's own Node.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { setup } from './setup.mjs';

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

function node(...args) {
  const bin = path.join(ROOT, 'node_modules/.bin');
  const { status } = spawnSync(path.join(bin, 'node'), args, {
    cwd: ROOT,
    stdio: 'inherit',
    env: { ...process.env, PATH: `${bin}:${process.env.PATH}` },
  });
  return status ?? 1;
}

try {
  await setup();
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
}
const words = process.argv.slice(2);
// A chosen tier is for a quick look; without one everything is verified.
const verified = words.length > 0 ? 0 : node('test/verify.ts');
const tested = node('test/run.ts', ...words);
process.exit(verified || tested);
