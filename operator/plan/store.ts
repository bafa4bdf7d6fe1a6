/** Can the store's claim be used, and how do its pods have to be placed? Pure. */
import type { CoreV1Event, V1PersistentVolumeClaim } from '@kubernetes/client-node';
import type { Store } from '../api/store.ts';
import type { StoreClaim } from '../manifests/pod.ts';

const DEFAULT_CLAIM = 'fovea-store';

export function claimName(store: Store | undefined): string {
  return store?.pvc?.claimName ?? DEFAULT_CLAIM;
}

/** `store://<claim>[/<path>]`, the base of the URIs of what lies in it. */
function storeUri(store: Store | undefined): string {
  const path = (store?.pvc?.path ?? '').replace(/^\/+|\/+$/g, '');
  return `store://${claimName(store)}${path === '' ? '' : `/${path}`}`;
}

type StoreState =
  | { claim: StoreClaim; uri: string }
  | { waiting: { reason: string; message: string } }
  | { stalled: { reason: string; message: string } };

export function observeStore(
  store: Store | undefined,
  claim: V1PersistentVolumeClaim | undefined,
  namespace: string,
): StoreState {
  const name = claimName(store);
  if (!claim) {
    return {
      waiting: {
        reason: 'StoreNotFound',
        message: `PersistentVolumeClaim ${name} does not exist in namespace ${namespace}; create it, or name another in spec.store.pvc.claimName.`,
      },
    };
  }
  const modes = claim.spec?.accessModes ?? [];
  if (modes.includes('ReadWriteOncePod')) {
    return {
      stalled: {
        reason: 'StoreNotShareable',
        message: `PersistentVolumeClaim ${name} is ReadWriteOncePod, so one pod at a time could use it; a store needs ReadWriteMany, or ReadWriteOnce on one node.`,
      },
    };
  }
  if (claim.status?.phase === 'Lost') {
    return {
      stalled: {
        reason: 'StoreLost',
        message: `PersistentVolumeClaim ${name} lost its volume; restore the volume, or name another claim in spec.store.pvc.claimName.`,
      },
    };
  }
  return {
    claim: { claimName: name, path: store?.pvc?.path ?? '', oneNode: !modes.includes('ReadWriteMany') },
    uri: storeUri(store),
  };
}

/** The latest of some Events, and when it was last seen, in ms since the epoch. */
export function newestEvent(events: readonly CoreV1Event[]): { event: CoreV1Event; time: number } | undefined {
  let newest: { event: CoreV1Event; time: number } | undefined;
  for (const event of events) {
    const seen = event.series?.lastObservedTime ?? event.lastTimestamp ?? event.eventTime;
    const time = new Date(seen ?? event.metadata?.creationTimestamp ?? 0).getTime();
    if (!newest || time >= newest.time) newest = { event, time };
  }
  return newest;
}

/** So long a provisioner may take before it is said that it is waited for. */
export const PROVISIONING_SECONDS = 10;

/**
 * Why a claim does not get its volume, if it does not. One that waits for its first pod, or is being provisioned, is all right.
 *
 * @param events of any objects
 */
export function claimObstacle(
  claim: V1PersistentVolumeClaim,
  events: readonly CoreV1Event[],
  now: Date,
): { reason: string; message: string } | undefined {
  const { name, uid, creationTimestamp } = claim.metadata ?? {};
  if (claim.status?.phase !== 'Pending' || claim.metadata?.deletionTimestamp) return undefined;
  const newest = newestEvent(events.filter((event) => event.involvedObject.uid === uid))?.event;
  const said = newest?.message ?? '';
  const storageClass = claim.spec?.storageClassName;
  const pending = (toDo: string) => ({
    reason: 'ClaimPending',
    message: `PersistentVolumeClaim ${name} has no volume: ${said.replace(/\.$/, '')}. ${toDo}`,
  });
  switch (newest?.reason) {
    case 'FailedBinding':
      return pending(
        storageClass
          ? `Make a PersistentVolume of class ${storageClass} that fits its spec.resources.requests.storage and spec.accessModes.`
          : 'Make it anew with a class of kubectl get storageclass in spec.storageClassName, mark one of them as the default, or make a PersistentVolume that fits.',
      );
    case 'ProvisioningFailed':
      return pending(
        /storageclass\S* "[^"]*" not found/.test(said)
          ? `Create StorageClass ${storageClass}, or make the claim anew with another in spec.storageClassName.`
          : `Its provisioner, of StorageClass ${storageClass}, tries again.`,
      );
    case 'ExternalProvisioning':
      if (now.getTime() - new Date(creationTimestamp ?? 0).getTime() < PROVISIONING_SECONDS * 1000) return undefined;
      return pending(`See that the provisioner of StorageClass ${storageClass} runs.`);
    case 'VolumeMismatch':
      return pending('Correct its spec.volumeName, or what it asks for.');
    default:
      return undefined;
  }
}
