/**
 * How many replicas a service has that scales by itself (`scaling.mode: BuiltIn`). Pure: measured requests in, decision out.
 *
 * More replicas come at once. Fewer come when the requests of the whole delay would have been carried by fewer: the greatest
 * number that was needed in that time counts. So after a restart of the operator, which forgets what was measured, nothing
 * goes before a whole delay has been watched again.
 */
import { InferenceServiceSpec, type InferenceServiceStatus } from '../api/inferenceservice.ts';
import { timestamp } from './conditions.ts';

/** What a service carried at one time. */
export interface LoadSample {
  /** Milliseconds, on a clock that only goes forward. */
  at: number;
  /** Requests received and not answered, on average since the sample before. */
  pending: number;
  /** False: not everything that carries requests could be read, so there may be more. */
  complete: boolean;
}

/** `spec.scaling` of mode BuiltIn with its defaults. */
export type BuiltInScaling = ReturnType<typeof builtInScaling> & object;

const Scaling = InferenceServiceSpec.shape.scaling.unwrap();
const Target = Scaling.shape.target.unwrap();

/** Undefined where `spec.replicas` decides: `scaling` is absent, or of mode External; or wrong, which the plan says elsewhere. */
export function builtInScaling(scaling: InferenceServiceSpec['scaling']) {
  const parsed = Scaling.safeParse(scaling);
  if (!parsed.success || parsed.data.mode === 'External') return undefined;
  const { minReplicas, maxReplicas, target, scaleDownDelaySeconds } = parsed.data;
  return { minReplicas, maxReplicas, perReplica: Target.parse(target ?? {}).perReplica, scaleDownDelaySeconds };
}

/** Load above what the replicas are for that brings no other: what is measured of a steady load wavers. */
const TOLERANCE = 0.1;
/** Milliseconds between two samples after which nothing is known of the time between them. */
const GAP = 15_000;

const clamp = (replicas: number, { minReplicas, maxReplicas }: Pick<BuiltInScaling, 'minReplicas' | 'maxReplicas'>) =>
  Math.min(maxReplicas, Math.max(minReplicas, replicas));

/** One digit after the point is more than a load can be known by. */
const rounded = (pending: number) => String(Math.round(pending * 10) / 10);

/**
 * The replicas that `samples` ask for, and why, if that is not the number there is.
 *
 * @param samples oldest first; of the scale-down delay, and the one before it
 */
export function decideScale(
  scaling: BuiltInScaling,
  samples: readonly LoadSample[],
  replicas: number,
): { desired: number; reason: string } | undefined {
  const { minReplicas, maxReplicas, perReplica, scaleDownDelaySeconds } = scaling;
  if (replicas < minReplicas) return { desired: minReplicas, reason: `minReplicas is ${minReplicas}` };
  if (replicas > maxReplicas) return { desired: maxReplicas, reason: `maxReplicas is ${maxReplicas}` };
  const latest = samples.at(-1);
  if (!latest) return undefined;
  const needed = ({ pending }: LoadSample) => clamp(Math.ceil(pending / perReplica), scaling);

  if (latest.pending > perReplica * replicas * (1 + TOLERANCE)) {
    const desired = needed(latest);
    const bound = latest.pending > perReplica * maxReplicas ? `; maxReplicas is ${maxReplicas}` : '';
    const reason = `pending ${rounded(latest.pending)} > ${perReplica} × ${replicas}${bound}`;
    return desired > replicas ? { desired, reason } : undefined;
  }

  const since = latest.at - scaleDownDelaySeconds * 1000;
  const watched = samples[0]!.at <= since && samples.every(({ at }, i) => i === 0 || at - samples[i - 1]!.at <= GAP);
  // Each sample speaks of the time since the one before it: the one at the beginning of the delay speaks of what lies before.
  const within = samples.filter((sample) => sample.at > since || sample === latest);
  if (!watched || within.some(({ complete }) => !complete)) return undefined;
  const busiest = within.reduce((a, b) => (b.pending > a.pending ? b : a));
  const desired = needed(busiest);
  if (desired >= replicas) return undefined;
  const reason = `pending at most ${rounded(busiest.pending)} in ${scaleDownDelaySeconds} s, ${perReplica} × ${desired} is enough`;
  return { desired, reason };
}

/**
 * `status.scaling` as it is to be: it changes only when the number does, so that a wavering load writes no status.
 *
 * @param replicas how many there are where the status does not say how many there should be
 */
export function planScaling(
  scaling: BuiltInScaling,
  before: InferenceServiceStatus['scaling'],
  samples: readonly LoadSample[],
  replicas: number,
  now: Date,
): NonNullable<InferenceServiceStatus['scaling']> {
  const present = before ?? { desired: clamp(replicas, scaling), reason: 'not scaled yet' };
  const decided = decideScale(scaling, samples, present.desired);
  return decided ? { ...decided, lastScaleTime: timestamp(now) } : present;
}
