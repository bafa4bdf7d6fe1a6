import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { claimsOf } from './world.ts';

const it = suite('world');

it('knows the claims that an object’s pods mount: its store, and a Dataset’s source', () => {
  const store = { type: 'PVC', pvc: { claimName: 'mine' } } as const;
  assert.equal(claimsOf({}), ['fovea-store']);
  assert.equal(claimsOf({ store, source: {} }), ['mine']);
  assert.equal(claimsOf({ source: { pvc: { claimName: 'pictures' } } }), ['fovea-store', 'pictures']);
  assert.equal(claimsOf({ store, source: { pvc: { claimName: 'mine' } } }), ['mine']);
});

it.run();
