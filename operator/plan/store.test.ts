import type { CoreV1Event, V1PersistentVolumeClaim } from '@kubernetes/client-node';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { claimObstacle, newestEvent, observeStore } from './store.ts';

const it = suite('claim of a store');

const NOW = new Date('2026-01-02T03:04:05Z');

function claim(phase: string, storageClassName?: string, age = 60): V1PersistentVolumeClaim {
  return {
    metadata: { name: 'fovea-store', uid: 'c', creationTimestamp: new Date(NOW.getTime() - age * 1000) },
    spec: { accessModes: ['ReadWriteMany'], storageClassName },
    status: { phase },
  };
}

const event = (reason: string, message: string, seconds = 0, uid = 'c') =>
  ({
    involvedObject: { kind: 'PersistentVolumeClaim', uid },
    reason,
    message,
    lastTimestamp: new Date(NOW.getTime() - 30_000 + seconds * 1000).toISOString(),
  }) as unknown as CoreV1Event;

it('says what a claim needs whose volume cannot be had', () => {
  const cases: [CoreV1Event, string | undefined, string][] = [
    [
      event('FailedBinding', 'no persistent volumes available for this claim and no storage class is set'),
      undefined,
      'PersistentVolumeClaim fovea-store has no volume: no persistent volumes available for this claim and no storage class is set. Make it anew with a class',
    ],
    [
      event('FailedBinding', 'no persistent volumes available for this claim and no storage class is set'),
      'slow',
      'Make a PersistentVolume of class slow',
    ],
    [
      event('ProvisioningFailed', 'storageclass.storage.k8s.io "fast" not found'),
      'fast',
      'Create StorageClass fast, or make the claim anew',
    ],
    [event('ProvisioningFailed', 'no space in the pool'), 'fast', 'no space in the pool. Its provisioner'],
    [
      event('ExternalProvisioning', "Waiting for a volume to be created by the external provisioner 'x.example.com'."),
      'fast',
      "'x.example.com'. See that the provisioner of StorageClass fast runs.",
    ],
  ];
  for (const [said, storageClass, words] of cases) {
    const found = claimObstacle(claim('Pending', storageClass), [said], NOW);
    assert.is(found?.reason, 'ClaimPending');
    assert.ok(found?.message.includes(words), found?.message);
  }
});

it('finds nothing wrong with a claim that waits for its first pod, is new, is bound or is told nothing of', () => {
  const waiting = event('WaitForFirstConsumer', 'waiting for first consumer to be created before binding');
  const failed = event('ProvisioningFailed', 'x', -60);
  assert.is(claimObstacle(claim('Pending', 'local'), [waiting], NOW), undefined);
  assert.is(claimObstacle(claim('Pending', 'local'), [waiting, failed], NOW), undefined, 'the latest counts');
  assert.is(claimObstacle(claim('Pending', 'fast', 2), [event('ExternalProvisioning', 'x')], NOW), undefined);
  assert.is(claimObstacle(claim('Bound', 'fast'), [failed], NOW), undefined);
  assert.is(claimObstacle(claim('Pending', 'fast'), [], NOW), undefined);
  assert.is(claimObstacle(claim('Pending'), [event('FailedBinding', 'x', 0, 'another')], NOW), undefined);
});

it('takes an Event for as new as it was last repeated', () => {
  const repeated = { ...event('A', ''), series: { lastObservedTime: NOW.toISOString() } } as unknown as CoreV1Event;
  const later = event('B', '', 5);
  assert.is(newestEvent([repeated, later])?.event.reason, 'A');
  assert.is(newestEvent([])?.event, undefined);
});

it('refuses a store whose claim only one pod can use, or has lost its volume, and waits for one that is missing', () => {
  const exclusive = { ...claim('Bound'), spec: { accessModes: ['ReadWriteOncePod'] } };
  const seen = [exclusive, claim('Lost'), undefined].map((of) => observeStore(undefined, of, 'n'));
  assert.equal(
    seen.map((state) => ('stalled' in state ? state.stalled : 'waiting' in state ? state.waiting : undefined)?.reason),
    ['StoreNotShareable', 'StoreLost', 'StoreNotFound'],
  );
});

it.run();
