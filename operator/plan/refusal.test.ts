import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { FIELD_PATHS } from './fields.ts';
import { refusalOf } from './refusal.ts';

const it = suite('refusal of pods');

const forbidden = (why: string) => `Error creating: pods "a-t1f3c9b2e-1-0-x7k2p" is forbidden: ${why}`;
const quota =
  'exceeded quota: small, requested: limits.memory=2Gi,requests.cpu=1, used: limits.memory=0,requests.cpu=0, limited: limits.memory=1Gi,requests.cpu=500m';

const CASES: [said: string, reason: string, parts: string[]][] = [
  [
    forbidden(quota),
    'QuotaExceeded',
    [
      'ResourceQuota small leaves no room',
      'limited: limits.memory=1Gi',
      'Lower spec.workers.resources.limits.memory and spec.workers.resources.requests.cpu, or raise spec.hard',
    ],
  ],
  [
    forbidden('exceeded quota: few, requested: pods=1, used: pods=3, limited: pods=3'),
    'QuotaExceeded',
    ['Remove what is not needed, or raise spec.hard'],
  ],
  [
    forbidden('failed quota: disk: must specify limits.ephemeral-storage for: trainer'),
    'QuotaExceeded',
    ['give limits.ephemeral-storage for: trainer under spec.workers.resources'],
  ],
  [
    forbidden('violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)'),
    'PodSecurityViolated',
    ['level restricted:latest', 'hostNetwork=true', 'pod-security.kubernetes.io/enforce'],
  ],
  [
    forbidden(
      '[maximum cpu usage per Container is 2, but limit is 4, maximum memory usage per Container is 1Gi, but limit is 4Gi]',
    ),
    'LimitRangeViolated',
    ['refuses the pod: maximum cpu usage per Container is 2, but limit is 4,', 'Change spec.workers.resources'],
  ],
  [
    forbidden('memory max limit to request ratio per Pod is 1, but provided ratio is 2.000000'),
    'LimitRangeViolated',
    ['provided ratio is 2'],
  ],
  [
    forbidden('error looking up service account n/robot: serviceaccount "robot" not found'),
    'ServiceAccountNotFound',
    ['ServiceAccount robot does not exist in namespace n', 'spec.workers.pod.serviceAccountName'],
  ],
  [
    'Error creating: admission webhook "policy.example.com" denied the request: no',
    'PodsRefused',
    ['The API server refuses the pod: admission webhook "policy.example.com" denied the request: no'],
  ],
];

it('names the object, the field and the value of each rule', () => {
  for (const [said, reason, parts] of CASES) {
    const words = refusalOf(said, FIELD_PATHS.trainingjob);
    assert.is(words.reason, reason);
    for (const part of parts) assert.ok(words.message.includes(part), `${words.message}\nlacks ${part}`);
    assert.not.match(words.message, 'x7k2p', 'a pod that was not made is nothing to look for');
  }
});

it('says the same of the same refusal, whoever repeats it', () => {
  const said = forbidden(quota);
  const byDeployment = said.replace('Error creating: ', '');
  const combined = `(combined from similar events): ${said}`;
  const [first, ...others] = [said, byDeployment, combined].map((text) => refusalOf(text, FIELD_PATHS.dataset));
  for (const other of others) assert.equal(other, first);
});

it.run();
