/** What is there in the end, without what differs from run to run: uids, times, versions, names of pods and namespaces. Pure. */
import type { KubeObject } from '../../operator/kube/resources.ts';

/** By `Kind/name`. */
export type EndState = Record<string, unknown>;

interface Names {
  namespace: string;
  /** What each uid ever seen belongs to. */
  uids: Map<string, string>;
  /** Names of pods, by what they were generated from. */
  pods: Map<string, string>;
}

// biome-ignore lint/suspicious/noExplicitAny: objects of any kind, read by their paths
type Loose = Record<string, any>;

export function endState(objects: readonly KubeObject[], names: Names): EndState {
  const state: EndState = {};
  for (const object of objects) {
    const { kind = '', metadata = {} } = plain(object, names);
    // Pods are alike within their parent, whatever they are called.
    let key = `${kind}/${metadata.name}`;
    for (let i = 2; key in state; i++) key = `${kind}/${metadata.name} (${i})`;
    state[key] = reduced(kind, plain(object, names));
  }
  return state;
}

function plain(object: KubeObject, { namespace, uids, pods }: Names): Loose {
  let text = JSON.stringify(object, (key, value) => (/(Time|Timestamp)$/.test(key) && value ? '<time>' : value));
  for (const [uid, owner] of uids) text = text.replaceAll(uid, `<uid of ${owner}>`);
  for (const [name, generated] of pods) text = text.replaceAll(name, `${generated}*`);
  text = text.replaceAll(namespace, '<namespace>');
  text = text.replaceAll(/-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----(\\n)?/g, '<certificate>');
  // Objects in annotations and environment: the order of their keys says nothing.
  return JSON.parse(text, (_, value) => (typeof value === 'string' && value.startsWith('{"') ? parsed(value) : value));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text; // cut off
  }
}

/** What is compared of an object. */
function reduced(kind: string, { metadata, spec, status, type }: Loose): unknown {
  const {
    name: _,
    namespace: __,
    uid,
    resourceVersion,
    creationTimestamp,
    managedFields,
    generation,
    ...rest
  } = metadata;
  switch (kind) {
    case 'Job': {
      const { succeeded, failed, conditions } = status ?? {};
      const types = conditions?.map((condition: Loose) => condition.type).sort();
      return { metadata: rest, spec, status: { succeeded, failed, conditions: types } };
    }
    case 'Deployment':
      return { metadata: rest, spec, status: { replicas: status?.replicas, readyReplicas: status?.readyReplicas } };
    case 'Pod':
      return { phase: status?.phase };
    case 'Secret':
      return { type };
    default:
      return { metadata: { ...rest, generation }, spec, status };
  }
}

/** Sentences, one for each value that is not as expected. */
export function differences(expected: unknown, found: unknown, path = ''): string[] {
  const isObject = (value: unknown): value is Loose => typeof value === 'object' && value !== null;
  if (!isObject(expected) || !isObject(found)) {
    if (Object.is(expected, found)) return [];
    return [`${path}: undisturbed ${JSON.stringify(expected)}, now ${JSON.stringify(found)}`];
  }
  const keys = new Set([...Object.keys(expected), ...Object.keys(found)]);
  return [...keys].flatMap((key) => differences(expected[key], found[key], path === '' ? key : `${path}.${key}`));
}
