// timeout: 400
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openStore } from '../../trainer-image/store.ts';
import { disturbed, packSamples, undisturbed } from '../survivors.ts';

const it = suite('survivors of lost workers');
const root = mkdtempSync(join(tmpdir(), 'survivors-'));
it.after(() => rmSync(root, { recursive: true, force: true }));
const store = await openStore(join(root, 'store'));
const place = { root, store, dataset: await packSamples(store) };

const JOBS = [
  { workers: 2, seed: 1 },
  { workers: 2, seed: 2 },
  { workers: 3, seed: 3 },
];
for (const [job, { workers, seed }] of JOBS.entries()) {
  it(`keep their state through four kills and end with the bits of a calm run (${workers} workers, seed ${seed})`, async () => {
    const calm = await undisturbed(place, workers, seed, `127.72.${20 + 2 * job}`);
    const network = `127.72.${21 + 2 * job}`;
    const { kills, digests, faults, generations } = await disturbed(place, {
      run: `killed-${job}`,
      workers,
      seed,
      killSeed: seed,
      kills: 4,
      network,
    });
    assert.equal(faults, [], JSON.stringify(kills));
    assert.is(digests, calm);
    assert.ok(generations > 4, `${generations} rings`);
  });
}

it.run();
