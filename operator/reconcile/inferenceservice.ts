/** Reconciles InferenceServices. Observe, plan, apply, summarize. */
import { RESOURCES } from '../api/object.ts';
import { DEPLOYMENTS, type KubeObject, splitKey } from '../kube/resources.ts';
import { planService } from '../plan/inferenceservice.ts';
import { builtInScaling } from '../plan/scaling.ts';
import { claimName } from '../plan/store.ts';
import { inputOf } from '../plan/target.ts';
import { createOnce, remove, writeStatus } from './apply.ts';
import { LOAD_SECONDS } from './load.ts';
import type { Hands } from './run.ts';
import { ownerKey } from './world.ts';

export async function reconcileInferenceService(
  hands: Hands,
  key: string,
): Promise<{ requeueAfterSeconds: number } | undefined> {
  const { client, world, recorder, load, options } = hands;
  const { namespace, name } = splitKey(key);
  const object = world.services.get(namespace, name);
  if (!object || object.metadata.deletionTimestamp) {
    load.forget(key);
    return;
  }

  const owner = ownerKey('inferenceservice', namespace, name);
  const exportName = object.spec.model.export!.name;
  const pods = world.pods.by('owner', owner);
  const scaling = object.spec.suspend ? undefined : builtInScaling(object.spec.scaling);
  if (!scaling) load.forget(key);
  const claim = world.claims.get(namespace, claimName(object.spec.store));
  const plan = planService({
    object,
    model: inputOf(
      'ModelExport',
      exportName,
      namespace,
      'spec.model.export.name',
      world.modelExports.get(namespace, exportName),
    ),
    deployments: world.deployments
      .by('owner', owner)
      .filter((deployment) => deployment.metadata?.ownerReferences?.some((o) => o.uid === object.metadata.uid)),
    pods,
    claim,
    events: claim ? world.eventsAbout([claim as KubeObject]) : [],
    load: scaling ? await load.measure(object.metadata, pods, scaling.scaleDownDelaySeconds) : [],
    options: options(),
    now: new Date(),
  });

  for (const deployment of plan.create) {
    if (await createOnce(client, DEPLOYMENTS, deployment as KubeObject)) {
      const message = `Deployment ${deployment.metadata?.name} serves the new revision.`;
      recorder.record(object, { type: 'Normal', reason: 'RevisionCreated', message });
    }
  }
  for (const { deployment, replicas } of plan.scale) {
    await client.patch(DEPLOYMENTS, namespace, deployment.metadata?.name ?? '', { spec: { replicas } });
  }
  for (const deployment of plan.remove) await remove(client, DEPLOYMENTS, deployment as KubeObject);
  await writeStatus(client, RESOURCES.inferenceServices, object, plan.status, plan.events, recorder);
  return scaling && { requeueAfterSeconds: LOAD_SECONDS };
}
