import { writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Progress } from './contract.ts';
import { temporaryFolder } from './data/test-pictures.ts';
import { createReporter } from './progress.ts';

const it = suite('progress');
const silent = { write() {} };
const servers: Server[] = [];

it.after.each(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

interface Received {
  url: string | undefined;
  authorization: string | undefined;
  progress: Progress;
}

/** An intake that keeps what it is told; `answer` false leaves requests open. */
async function intake(answer = true) {
  const received: Received[] = [];
  const waiting: (() => void)[] = [];
  const server: Server = createServer(async (request: IncomingMessage, response) => {
    const { url, headers } = request;
    received.push({
      url,
      authorization: headers.authorization,
      progress: Progress.parse(JSON.parse(await text(request))),
    });
    if (answer) response.writeHead(204).end();
    for (const wake of waiting.splice(0)) wake();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  servers.push(server);
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const next = () => new Promise<void>((resolve) => waiting.push(resolve));
  return { received, url, next };
}

it('reports to the intake with a token that is read again each time', async () => {
  const { received, url } = await intake();
  const tokenFile = join(temporaryFolder(), 'token');
  const env = { FOVEA_INTAKE: `${url}/`, FOVEA_INTAKE_TOKEN_FILE: tokenFile };
  const reporter = createReporter(env, silent);
  writeFileSync(tokenFile, 'first\n');
  reporter.report({ stage: 'training', percent: 1 });
  await reporter.flush();
  writeFileSync(tokenFile, 'second\n');
  reporter.report({ stage: 'training', percent: 2 });
  await reporter.flush();
  assert.equal(
    received.map(({ authorization }) => authorization),
    ['Bearer first', 'Bearer second'],
  );
  assert.is(received[0]?.url, '/v1/progress');
});

it('sends at most one report in two seconds, and of those between only the latest', async () => {
  const { received, url, next } = await intake();
  const reporter = createReporter({ FOVEA_INTAKE: url }, silent);
  const first = next();
  reporter.report({ stage: 'training', percent: 0 });
  await first;
  const second = next();
  const since = performance.now();
  for (let percent = 1; percent <= 50; percent++) reporter.report({ stage: 'training', percent });
  await second;
  assert.equal(
    received.map(({ progress }) => progress.percent),
    [0, 50],
  );
  assert.ok(performance.now() - since > 1500);
});

it('an intake that does not answer or is not there holds nothing up', async () => {
  const { url, received, next } = await intake(false);
  const started = performance.now();
  const reporter = createReporter({ FOVEA_INTAKE: url }, silent);
  const arrived = next();
  reporter.report({ stage: 'training', percent: 1 });
  await arrived;
  for (let percent = 2; percent < 1000; percent++) reporter.report({ stage: 'training', percent: percent / 10 });
  await reporter.flush();
  assert.is(received.length, 1);
  const gone = createReporter({ FOVEA_INTAKE: 'http://127.0.0.1:9', FOVEA_INTAKE_TOKEN_FILE: '/nowhere' }, silent);
  gone.report({ stage: 'training', percent: 1 });
  await gone.flush();
  assert.ok(performance.now() - started < 4000);
});

it('writes lines where there is no terminal and a bar where there is one', () => {
  const lines: string[] = [];
  const plain = createReporter({}, { write: (line) => lines.push(line) });
  for (let percent = 0; percent <= 100; percent++) plain.report({ stage: 'packing', percent });
  assert.equal(lines, ['  0 %  packing\n', '100 %  packing\n']);

  const drawn: string[] = [];
  const terminal = createReporter({}, { write: (line) => drawn.push(line), isTTY: true, columns: 200 });
  terminal.report({
    stage: 'training',
    percent: 50,
    epoch: 3,
    epochs: 10,
    metrics: [{ name: 'loss', value: 0.123456 }],
    etaSeconds: 240,
    samplesPerSecond: 1234.5,
  });
  terminal.note('a checkpoint was written');
  assert.match(
    drawn[0]!,
    '████████████░░░░░░░░░░░░  50 % training  epoch 3/10  loss 0.1235  1,235 samples/s  4 min left',
  );
  assert.equal(drawn.slice(1), ['\r\x1b[2K', 'a checkpoint was written\n']);
});

it.run();
