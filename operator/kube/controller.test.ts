import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../../test/kube-server.ts';
import { type Outcome, startController, TerminalError, WaitingError } from './controller.ts';
import { Queue } from './queue.ts';

const it = suite('controller');

it('works on so many keys at once and no more', async () => {
  const queue = new Queue();
  let most = 0;
  let now = 0;
  let done = 0;
  const controller = startController({
    queue,
    concurrency: 3,
    reconcile: async () => {
      most = Math.max(most, ++now);
      await new Promise((resolve) => setImmediate(resolve));
      now -= 1;
      done += 1;
      return undefined;
    },
  });
  for (let i = 0; i < 20; i++) queue.add(`k${i}`);
  await until(() => done === 20, 'all are worked off');
  assert.is(most, 3);
  await controller.stop();
});

it('tries again what failed, and reports it', async () => {
  const queue = new Queue({ baseDelay: 1 });
  const errors: string[] = [];
  const outcomes: Outcome[] = [];
  const controller = startController({
    queue,
    reconcile: async () => {
      if (outcomes.length < 2) throw new Error(`failure ${outcomes.length}`);
      return undefined;
    },
    onError: (key, error) => errors.push(`${key}: ${(error as Error).message}`),
    observe: (outcome) => outcomes.push(outcome),
  });
  queue.add('a');
  await until(() => outcomes.length === 3, 'it succeeds');
  assert.equal(outcomes, ['error', 'error', 'success']);
  assert.equal(errors, ['a: failure 0', 'a: failure 1']);
  await controller.stop();
});

it('does not try again what only the user or another object can change', async () => {
  const queue = new Queue({ baseDelay: 1 });
  const outcomes: Outcome[] = [];
  const errors: unknown[] = [];
  const controller = startController({
    queue,
    reconcile: async (key) => {
      if (key === 'other') return undefined;
      throw key === 'terminal' ? new TerminalError('spec.x: wrong') : new WaitingError('Dataset d is not ready');
    },
    onError: (key) => errors.push(key),
    observe: (outcome) => outcomes.push(outcome),
  });
  queue.add('terminal');
  queue.add('waiting');
  await until(() => outcomes.length === 2, 'both are looked at');
  queue.addAfter('other', 20);
  await until(() => outcomes.length > 2, 'the next');
  assert.equal(outcomes, ['terminal', 'waiting', 'success']);
  assert.equal(errors, ['terminal'], 'waiting is no error');
  await controller.stop();
});

it('looks again after the time that a reconcile asks for', async () => {
  const queue = new Queue();
  const times: number[] = [];
  const controller = startController({
    queue,
    reconcile: async () => {
      times.push(performance.now());
      return times.length === 1 ? { requeueAfterSeconds: 0.02 } : undefined;
    },
  });
  queue.add('a');
  await until(() => times.length === 2, 'it is called again');
  assert.ok(times[1] - times[0] >= 19);
  await controller.stop();
});

it('when stopped aborts what is in work, waits for it, and reports no error of it', async () => {
  const queue = new Queue();
  const errors: unknown[] = [];
  let ended = false;
  let begun = false;
  const controller = startController({
    queue,
    reconcile: (_, signal) =>
      new Promise((_resolve, reject) => {
        begun = true;
        signal.addEventListener('abort', () =>
          setImmediate(() => {
            ended = true;
            reject(signal.reason);
          }),
        );
      }),
    onError: (_, error) => errors.push(error),
  });
  queue.add('a');
  await until(() => begun, 'it is in work');
  await controller.stop();
  assert.ok(ended);
  assert.equal(errors, []);
});

it.run();
