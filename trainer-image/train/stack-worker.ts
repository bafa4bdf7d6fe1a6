/**
 * A thread beside the engine's, which answers on a socket where the engine's thread is: the only one that can, since that thread
 * itself may not come back. It stops it by the inspector's protocol for as long as it takes to read the stack.
 */
import { Session } from 'node:inspector/promises';
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { workerData } from 'node:worker_threads';

/** JavaScript that runs is stopped at once; a thread that is not in this time runs none. */
const PAUSE_MILLISECONDS = 300;

/** Innermost first, as in an Error; never resolves while the thread is in native code. */
async function stackOfMainThread(): Promise<string> {
  const session = new Session();
  session.connectToMainThread();
  try {
    const paused = new Promise<string>((resolve) => {
      session.once('Debugger.paused', ({ params: { callFrames } }) => {
        const lines = callFrames.map(({ functionName, url, location: { lineNumber, columnNumber } }) => {
          return `at ${functionName || '(anonymous)'} (${url}:${lineNumber + 1}:${(columnNumber ?? 0) + 1})`;
        });
        resolve(lines.join('\n'));
      });
    });
    await session.post('Debugger.enable');
    await session.post('Debugger.pause');
    return await Promise.race([
      paused,
      delay(PAUSE_MILLISECONDS, 'no JavaScript is running: the engine waits for an event'),
    ]);
  } finally {
    // A thread that is stopped goes on.
    session.disconnect();
  }
}

createServer((socket) => {
  socket.on('error', () => {});
  stackOfMainThread().then(
    (stack) => socket.end(stack),
    (error) => socket.end(`no stack: ${error}`),
  );
}).listen(workerData.socket);
