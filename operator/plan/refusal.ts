/** Why the API server refuses to make a child's pods, in words that name what to change. Pure. */
import type { FieldPaths } from './fields.ts';

/** What is said of a state: `reason` for programs, `message` for people. */
export interface Words {
  reason: string;
  message: string;
}

/** Where the pod's name stands: it is another one at each try, and nobody can look for a pod that was not made. */
const POD_NAME =
  /^(?:Error creating: )?(?:\(combined from similar events\): )?(?:Error creating: )?pods? "[^"]*" is forbidden: /;

/**
 * @param said by the API server, as the Job controller repeats it in an Event and the Deployment controller in a condition
 * @param fields of the object that the pods are made for
 */
export function refusalOf(said: string, fields: FieldPaths): Words {
  const why = said.replace(POD_NAME, '').replace(/^(\(combined from similar events\): )?Error creating: /, '');
  return quota(why, fields) ?? podSecurity(why) ?? limitRange(why, fields) ?? serviceAccount(why, fields) ?? other(why);
}

/** `exceeded quota: q, requested: limits.memory=2Gi, used: limits.memory=0, limited: limits.memory=1Gi` */
function quota(why: string, { resources }: FieldPaths): Words | undefined {
  const exceeded = /^exceeded quota: (\S+), (requested: (.*), used: .*, limited: .*)$/s.exec(why);
  if (exceeded) {
    const [, name, numbers, requested] = exceeded;
    const fieldsToLower = requested.split(',').flatMap((entry) => podField(entry.split('=')[0].trim()) ?? []);
    const lower =
      fieldsToLower.length > 0
        ? `Lower ${fieldsToLower.map((field) => `${resources}.${field}`).join(' and ')}, or raise`
        : 'Remove what is not needed, or raise';
    return {
      reason: 'QuotaExceeded',
      message: `ResourceQuota ${name} leaves no room for the pod (${numbers}). ${lower} spec.hard of the ResourceQuota.`,
    };
  }
  const unspecified = /^failed quota: (\S+): must specify (.*)$/s.exec(why);
  if (!unspecified) return undefined;
  return {
    reason: 'QuotaExceeded',
    message: `ResourceQuota ${unspecified[1]} wants more said of the pod: give ${unspecified[2]} under ${resources}.`,
  };
}

/** The field below `resources` that a quota's resource counts; undefined for what counts objects. */
function podField(counted: string): string | undefined {
  if (/^(requests|limits)\./.test(counted)) return counted;
  return counted === 'cpu' || counted === 'memory' || counted === 'ephemeral-storage'
    ? `requests.${counted}`
    : undefined;
}

/** `violates PodSecurity "restricted:latest": hostNetwork=true, ...` */
function podSecurity(why: string): Words | undefined {
  const violates = /^violates PodSecurity "([^"]+)": (.*)$/s.exec(why);
  if (!violates) return undefined;
  const [, level, what] = violates;
  return {
    reason: 'PodSecurityViolated',
    message: `The namespace's Pod Security level ${level} refuses the pod: ${what}. Fovea's own pods fit "restricted", so an admission webhook changes them (a service mesh, for one): exempt the pods from it, or lower the namespace's label pod-security.kubernetes.io/enforce.`,
  };
}

/** `[maximum memory usage per Container is 1Gi, but limit is 2Gi, ...]`, or one of these alone. */
function limitRange(why: string, { resources }: FieldPaths): Words | undefined {
  if (!/\b(minimum|maximum) \S+ usage per |\bratio per /.test(why)) return undefined;
  const rules = why.replace(/^\[(.*)\]$/s, '$1');
  return {
    reason: 'LimitRangeViolated',
    message: `A LimitRange of the namespace refuses the pod: ${rules}. Change ${resources} to fit, or the LimitRange (kubectl get limitrange).`,
  };
}

/** `error looking up service account ns/name: serviceaccount "name" not found` */
function serviceAccount(why: string, { pod }: FieldPaths): Words | undefined {
  const missing = /^error looking up service account (\S+)\/(\S+): .* not found/s.exec(why);
  if (!missing) return undefined;
  const [, namespace, name] = missing;
  return {
    reason: 'ServiceAccountNotFound',
    message: `ServiceAccount ${name} does not exist in namespace ${namespace}; create it, or correct ${pod}.serviceAccountName.`,
  };
}

function other(why: string): Words {
  return { reason: 'PodsRefused', message: `The API server refuses the pod: ${why}` };
}
