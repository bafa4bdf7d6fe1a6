// timeout: 300
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { eventually } from '../eventually.ts';
import {
  askAllTheTime,
  colours,
  inferenceService,
  isTrue,
  type Line,
  modelExport,
  startLine,
  trainingJob,
} from './line-fixture.ts';
import { withoutRoot } from './unprivileged.ts';

await withoutRoot(import.meta.filename);

const it = suite('the line where user namespaces are forbidden');
let line: Line;

it.before(async () => {
  line = await startLine(`line-rewrite-${process.pid}`, 'rewrite');
});
it.after(async () => {
  await line[Symbol.asyncDispose]();
});

it('goes from pictures to a service that answers, with every mount at another path', async () => {
  const namespace = await line.namespace('line');
  await line.apply(
    namespace,
    await colours(line, 'tints'),
    trainingJob('tints', 'tints'),
    modelExport('tints', 'tints'),
    inferenceService('tints', 'tints'),
  );
  const service = await line.until('inferenceServices', namespace, 'tints', isTrue('Ready', 'Serving'));
  await using asking = await askAllTheTime(service);
  await eventually(async () => asking.answers.good >= 5);
  assert.equal(asking.answers.bad, []);
});

it.run();
