import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { execPath } from 'node:process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { eventually } from '../../test/eventually.ts';
import { stackSocket, takeStack } from './stack.ts';

const it = suite('stack of a process');

/** What is said of a process that runs this program, once it says what is `wanted`. */
async function stackOf(program: string, wanted: RegExp, before: (pid: number) => void = () => {}): Promise<void> {
  const socket = stackSocket();
  const module = new URL('./stack.ts', import.meta.url);
  const begin = `import('${module}').then(({ answerForStack }) => { answerForStack(${JSON.stringify(socket)}); work(); });`;
  const work = `function work() { setTimeout(() => { console.log('begun'); ${program} }, 300); }`;
  const child = spawn(execPath, ['-e', `${work} ${begin}`], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    await once(child.stdout!, 'data');
    before(child.pid!);
    let said = '';
    await eventually(
      async () => {
        said = await takeStack(child.pid!, socket);
        return wanted.test(said);
      },
      () => said,
      20,
    );
    assert.is(child.exitCode, null);
  } finally {
    child.kill('SIGKILL');
  }
}

it('names the functions it is in, innermost first', async () => {
  const program = 'function spin() { for (;;); } function train() { spin(); } train();';
  await stackOf(program, /^at spin \(.*\nat train \(/);
});

it('says so when it waits for an event, and can be asked again', async () => {
  await stackOf('setInterval(() => {}, 1e6);', /waits for an event/);
});

it('names what its threads wait for when it runs no JavaScript', async () => {
  await stackOf("require('node:fs').readSync(0, Buffer.alloc(1));", /native code(.|\n)*\d+ × MainThread: S/u);
  await stackOf('setInterval(() => {}, 1e6);', /T \(stopped\)/, (pid) => process.kill(pid, 'SIGSTOP'));
});

it('says that a process has ended', async () => {
  const child = spawn(execPath, ['-e', '']);
  await once(child, 'close');
  assert.is(await takeStack(child.pid!, stackSocket()), 'the process has ended');
});

it.run();
