/** Can the store's claim be used, and how do its pods have to be placed? Pure. */
import type { V1PersistentVolumeClaim } from '@kubernetes/client-node';
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
