import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { wrongImports } from './imports.ts';

const it = suite('imports');

it('an import against the arrow is named with its file and target', () => {
  const [wrong] = wrongImports('operator/kube/queue.ts', "import { x } from '../api/object.ts';");
  assert.match(wrong, /operator\/kube\/queue\.ts imports operator\/api\/object\.ts/);
});

it('the operator may import the contract and nothing else of the trainer', () => {
  const source = "import type { Task } from '../../trainer-image/contract.ts';";
  assert.equal(wrongImports('operator/plan/run.ts', source), []);
  assert.is(wrongImports('operator/plan/run.ts', "import { s } from '../../trainer-image/store.ts';").length, 1);
});

it('an import over several lines and a dynamic one are seen', () => {
  const source = "import {\n  a,\n  b,\n} from '../operator/main.ts';\nconst c = await import('../operator/log.ts');";
  assert.is(wrongImports('trainer-image/main.ts', source).length, 2);
});

it('packages and imports with the arrow are let through', () => {
  const source = "import { z } from 'zod';\nimport { planRun } from '../plan/run.ts';";
  assert.equal(wrongImports('operator/reconcile/run.ts', source), []);
});

it.run();
