import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { COMPONENTS, REVISION_LABEL } from '../manifests/labels.ts';
import type { WatchedPod, WatchedService } from './routes.ts';
import { routingTable } from './table.ts';

const it = suite('routing table');

const service: WatchedService = {
  metadata: { name: 'a', namespace: 'n' },
  spec: {},
  status: { revisions: [{ name: 'a-1', trafficPercent: 100 }] },
};

function pod(name: string, uid: string, ready = 'True', podIP = '127.70.0.1'): WatchedPod {
  const labels = { [COMPONENTS.inferenceservice.ownerLabel]: 'a', [REVISION_LABEL]: 'a-1' };
  return {
    metadata: { name, namespace: 'n', uid, labels },
    status: { podIP, conditions: [{ type: 'Ready', status: ready }] },
  };
}

const uids = (table: ReturnType<typeof routingTable>) =>
  table.find('n', 'a')?.revisions.flatMap(({ backends }) => backends.map(({ uid }) => uid));

it('finds a service from when it is known until it is gone, whichever comes first, it or its pods', () => {
  const table = routingTable();
  table.setPod(pod('p', '1'));
  assert.is(table.find('n', 'a'), undefined);
  table.setService('n', 'a', service);
  assert.equal(uids(table), ['1']);
  assert.is(table.find('other', 'a'), undefined);
  table.setService('n', 'a', undefined);
  assert.is(table.find('n', 'a'), undefined);
});

it('follows pods as they become ready, and goes on without those that are gone', () => {
  const table = routingTable();
  table.setService('n', 'a', service);
  table.setPod(pod('p', '1', 'False'));
  assert.equal(uids(table), []);
  table.setPod(pod('p', '1'));
  table.setPod(pod('q', '2', 'True', '127.70.0.2'));
  assert.equal(uids(table), ['1', '2']);
  table.setPod(pod('p', '1'), true);
  assert.equal(uids(table), ['2']);
});

it('does not take a late word of a former pod for the end of one of the same name', () => {
  const table = routingTable();
  table.setService('n', 'a', service);
  table.setPod(pod('p', '2'));
  table.setPod(pod('p', '1'), true);
  assert.equal(uids(table), ['2']);
});

it('keeps a pod’s connections over changes that do not concern it, and closes them when it goes', () => {
  const table = routingTable();
  table.setService('n', 'a', service);
  table.setPod(pod('p', '1'));
  const backend = table.find('n', 'a')?.revisions[0]?.backends[0];
  table.setPod(pod('q', '2', 'True', '127.70.0.2'));
  assert.is(table.find('n', 'a')?.revisions[0]?.backends[0], backend);
  table.setPod(pod('p', '1', 'False'));
  assert.is(backend?.pool.closed, true);
});

it.run();
