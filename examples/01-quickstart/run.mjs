/**
 * `npm run quickstart [-- --down]`: sets the machine up and runs quickstart.ts under the project's own Node. Plain JavaScript
 * without a dependency, because Node 20 has to start it before anything is installed.
 */
import { spawn } from 'node:child_process';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { setup } from '../../test/setup.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const BIN = path.join(HERE, '../../node_modules/.bin');

try {
  await setup();
} catch (error) {
  process.stderr.write(`quickstart: ${error.message}\n`);
  process.exit(1);
}
const child = spawn(path.join(BIN, 'node'), [path.join(HERE, 'quickstart.ts'), ...process.argv.slice(2)], {
  stdio: 'inherit',
  env: { ...process.env, PATH: `${BIN}:${process.env.PATH}` },
});
// Ctrl-C reaches the child too, which ends in its own way; a signal sent to this process alone is passed on.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => child.kill('SIGTERM'));
child.on('error', (error) => {
  process.stderr.write(`quickstart: ${error.message}\n`);
  process.exit(1);
});
child.on('exit', (code) => process.exit(code ?? 1));
