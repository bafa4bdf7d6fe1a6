/** The kinds of crds/ on an API server under test. */
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { KINDS } from '../../operator/api/kinds.ts';
import type { Client } from '../../operator/kube/client.ts';
import type { KubeObject } from '../../operator/kube/resources.ts';
import { eventually } from '../eventually.ts';

const CRDS = {
  group: 'apiextensions.k8s.io',
  version: 'v1',
  plural: 'customresourcedefinitions',
  kind: 'CustomResourceDefinition',
  namespaced: false,
};

type Definition = KubeObject & { status?: { conditions?: { type: string; status: string }[] } };

/** Installs the files of crds/ and returns when the API server serves them. */
export async function installKinds(client: Client): Promise<void> {
  for (const { plural } of KINDS) {
    await client.apply(CRDS, parse(readFileSync(`crds/fovea.dev_${plural}.yaml`, 'utf8')), 'test');
  }
  for (const { plural } of KINDS) {
    await eventually(async () => {
      const crd = await client.get<Definition>(CRDS, undefined, `${plural}.fovea.dev`);
      if (!crd.status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True')) return false;
      await client.list({ group: 'fovea.dev', version: 'v1alpha1', plural, kind: '', namespaced: true }, {});
      return true;
    });
  }
}
