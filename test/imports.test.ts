import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { wrongImports } from './imports.ts';

const it = suite('imports');

it('an import against the arrow is named with its file, its target and what would be right', () => {
  assert.equal(wrongImports('operator/api/pod.ts', "import { x } from '../plan/run.ts';"), [
    'operator/api/pod.ts imports operator/plan/run.ts: files in operator/api/ may import only operator/api/, trainer-image/contract.ts',
  ]);
});

it('the arrows point from reconcile to plan, manifests and api, and never back', () => {
  const folders = ['api', 'manifests', 'plan', 'reconcile'];
  for (const [from, folder] of folders.entries()) {
    for (const [to, target] of folders.entries()) {
      const wrong = wrongImports(`operator/${folder}/a.ts`, `import { b } from '../${target}/b.ts';`);
      assert.is(wrong.length, to > from ? 1 : 0, `${folder} to ${target}`);
    }
  }
});

it('kube imports no kind', () => {
  assert.is(wrongImports('operator/kube/queue.ts', "import type { Dataset } from '../api/dataset.ts';").length, 1);
  assert.is(wrongImports('operator/kube/queue.ts', "import { backoff } from './backoff.ts';").length, 0);
});

it('across the border the operator imports the contract only, and the trainer nothing', () => {
  assert.equal(
    wrongImports('operator/plan/run.ts', "import type { Task } from '../../trainer-image/contract.ts';"),
    [],
  );
  assert.is(wrongImports('operator/plan/run.ts', "import { s } from '../../trainer-image/store.ts';").length, 1);
  assert.is(wrongImports('operator/main.ts', "import { s } from '../trainer-image/store.ts';").length, 1);
  assert.is(wrongImports('trainer-image/store.ts', "import { l } from '../operator/log.ts';").length, 1);
});

it('only tests import what is for tests', () => {
  const source = "import { startControlPlane } from '../../test/cluster/controlplane.ts';";
  assert.is(wrongImports('operator/kube/client.ts', source).length, 1);
  assert.equal(wrongImports('operator/kube/client.test.ts', source), []);
  assert.is(wrongImports('operator/kube/client.test.ts', "import { p } from '../plan/run.ts';").length, 1);
});

it('every form of import is seen', () => {
  const forms = [
    "import {\n  a,\n  b,\n} from '../operator/main.ts';",
    "import type { A } from '../operator/main.ts';",
    "export * from '../operator/main.ts';",
    "export { a } from '../operator/main.ts';",
    "import '../operator/main.ts';",
    "const c = await import('../operator/main.ts');",
    "new Worker(new URL('../operator/main.ts', import.meta.url));",
  ];
  for (const form of forms) assert.is(wrongImports('trainer-image/main.ts', form).length, 1, form);
  assert.is(wrongImports('trainer-image/main.ts', forms.join('\n')).length, forms.length);
});

it('packages, comments and other strings are no imports', () => {
  const source = `
import { z } from 'zod';
/** import { a } from '../operator/main.ts' */
// import './operator/main.ts'
const text = "read from '../operator/main.ts'";
`;
  assert.equal(wrongImports('trainer-image/main.ts', source), []);
});

it('a folder without a row is named', () => {
  assert.match(wrongImports('charts/a.ts', '')[0], /charts\/a\.ts is in no folder/);
});

it.run();
