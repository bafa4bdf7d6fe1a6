import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Graph, GraphNode } from '../models/graph.ts';
import { initializeWeights, type Weights } from '../models/weights.ts';
import type { ResolvedOptimizer } from '../optim/optimizer.ts';
import { randomStream } from '../philox.ts';
import { createInference } from './inference.ts';
import { loadEngine, tensorCount } from './tfjs.ts';
import { createTrainingEngine } from './training.ts';

const it = suite('training engine');
loadEngine(1);

/** Each op at least once, odd sizes, strides with padding, a value with two readers. */
const graph: Graph = {
  input: { height: 9, width: 7, channels: 2 },
  nodes: [
    { op: 'Conv', name: 'c1', inputs: ['input'], filters: 4, kernel: [3, 3], stride: 1, padding: [1, 1] },
    { op: 'BatchNorm', name: 'n1', inputs: ['c1'], epsilon: 1e-5, momentum: 0.1 },
    { op: 'Relu', name: 'r1', inputs: ['n1'] },
    { op: 'Conv', name: 'c2', inputs: ['r1'], filters: 6, kernel: [3, 3], stride: 2, padding: [1, 1] },
    { op: 'BatchNorm', name: 'n2', inputs: ['c2'], epsilon: 1e-5, momentum: 0.1 },
    { op: 'Subsample', name: 's', inputs: ['r1'], stride: 2 },
    { op: 'PadChannels', name: 'p', inputs: ['s'], before: 1, after: 1 },
    { op: 'Add', name: 'a', inputs: ['n2', 'p'] },
    { op: 'Relu', name: 'r2', inputs: ['a'] },
    { op: 'MaxPool', name: 'm', inputs: ['r2'], kernel: 3, stride: 2, padding: 1 },
    { op: 'Conv', name: 'c3', inputs: ['m'], filters: 5, kernel: [1, 1], stride: 1, padding: [0, 0] },
    { op: 'GlobalAveragePool', name: 'g', inputs: ['c3'] },
    { op: 'Dense', name: 'fc', inputs: ['g'], units: 3 },
  ],
  output: 'fc',
};
const BATCH = 6;
const SMOOTHING = 0.1;
const normalization = { mean: [0.4, 0.6], std: [0.2, 0.3] };
const random = randomStream(11, 1, 0, 0);
const pixels = Uint8Array.from({ length: BATCH * 9 * 7 * 2 }, () => random.integer(256));
const labels = Int32Array.from({ length: BATCH }, (_, i) => i % 3);

const sgd: ResolvedOptimizer = {
  type: 'SGD',
  momentum: 0.9,
  nesterov: true,
  weightDecay: 0.01,
  decayNormsAndBiases: false,
};
const engineOf = (weights: Weights, options: object = {}) =>
  createTrainingEngine(graph, weights, { ...normalization, optimizer: sgd, labelSmoothing: SMOOTHING, ...options });

// ------------------------------------------------------------------ the same in plain loops and float64, from PyTorch's documentation

/** [N, H, W, C] */
interface Value {
  shape: number[];
  data: Float64Array;
}
const value = (shape: number[]): Value => ({ shape, data: new Float64Array(shape.reduce((a, b) => a * b, 1)) });
const at = ({ shape: [, H, W, C] }: Value, n: number, h: number, w: number, c: number) =>
  ((n * H! + h) * W! + w) * C! + c;

/** Parameters of any precision. */
type Parameters = ReadonlyMap<string, { data: ArrayLike<number> }>;

function reference(weights: Parameters, training: boolean): { logits: Value; statistics: Map<string, Float64Array> } {
  const values = new Map<string, Value>();
  const input = value([BATCH, 9, 7, 2]);
  for (let i = 0; i < pixels.length; i++) {
    input.data[i] = (pixels[i]! / 255 - normalization.mean[i % 2]!) / normalization.std[i % 2]!;
  }
  values.set('input', input);
  const statistics = new Map<string, Float64Array>();
  for (const node of graph.nodes) {
    const [x, y] = node.inputs.map((name) => values.get(name)!);
    values.set(
      node.name,
      compute(node, x!, y, (suffix) => weights.get(`${node.name}.${suffix}`)!.data, training, statistics),
    );
  }
  return { logits: values.get('fc')!, statistics };
}

function compute(
  node: GraphNode,
  x: Value,
  other: Value | undefined,
  weight: (suffix: string) => ArrayLike<number>,
  training: boolean,
  statistics: Map<string, Float64Array>,
): Value {
  const [N, H, W, C] = x.shape as [number, number, number, number];
  const outputSize = (size: number, kernel: number, stride: number, padding: number) =>
    Math.floor((size + 2 * padding - kernel) / stride) + 1;
  /** Fills an output by a function of its position. */
  const fill = (h: number, w: number, c: number, f: (n: number, h: number, w: number, c: number) => number) => {
    const out = value([N, h, w, c]);
    for (let n = 0; n < N; n++) {
      for (let i = 0; i < h; i++) {
        for (let j = 0; j < w; j++) for (let k = 0; k < c; k++) out.data[at(out, n, i, j, k)] = f(n, i, j, k);
      }
    }
    return out;
  };
  switch (node.op) {
    case 'Conv': {
      const [kh, kw] = node.kernel;
      const h = outputSize(H, kh, node.stride, node.padding[0]);
      const w = outputSize(W, kw, node.stride, node.padding[1]);
      return fill(h, w, node.filters, (n, i, j, o) => {
        let sum = 0;
        for (let a = 0; a < kh; a++) {
          for (let b = 0; b < kw; b++) {
            const [y, z] = [i * node.stride - node.padding[0] + a, j * node.stride - node.padding[1] + b];
            if (y < 0 || z < 0 || y >= H || z >= W) continue;
            for (let c = 0; c < C; c++)
              sum += x.data[at(x, n, y, z, c)]! * weight('weight')[((o * C + c) * kh + a) * kw + b]!;
          }
        }
        return sum;
      });
    }
    case 'BatchNorm': {
      let mean: ArrayLike<number> = weight('running_mean');
      let variance: ArrayLike<number> = weight('running_var');
      if (training) {
        const count = N * H * W;
        const [m, v] = [new Float64Array(C), new Float64Array(C)];
        for (const [i, d] of x.data.entries()) m[i % C]! += d / count;
        for (const [i, d] of x.data.entries()) v[i % C]! += (d - m[i % C]!) ** 2 / count;
        [mean, variance] = [m, v];
        const moved = (old: ArrayLike<number>, now: Float64Array, by: number) =>
          Float64Array.from(old, (r, c) => (1 - node.momentum) * r + node.momentum * now[c]! * by);
        statistics.set(`${node.name}.running_mean`, moved(weight('running_mean'), m, 1));
        statistics.set(`${node.name}.running_var`, moved(weight('running_var'), v, count / (count - 1)));
      }
      return fill(H, W, C, (n, i, j, c) => {
        const normal = (x.data[at(x, n, i, j, c)]! - mean[c]!) / Math.sqrt(variance[c]! + node.epsilon);
        return normal * weight('weight')[c]! + weight('bias')[c]!;
      });
    }
    case 'Relu':
      return { ...x, data: x.data.map((d) => Math.max(0, d)) };
    case 'Add':
      return { ...x, data: x.data.map((d, i) => d + other!.data[i]!) };
    case 'MaxPool': {
      const size = (s: number) => outputSize(s, node.kernel, node.stride, node.padding);
      return fill(size(H), size(W), C, (n, i, j, c) => {
        let best = Number.NEGATIVE_INFINITY;
        for (let a = 0; a < node.kernel; a++) {
          for (let b = 0; b < node.kernel; b++) {
            const [y, z] = [i * node.stride - node.padding + a, j * node.stride - node.padding + b];
            if (y >= 0 && z >= 0 && y < H && z < W) best = Math.max(best, x.data[at(x, n, y, z, c)]!);
          }
        }
        return best;
      });
    }
    case 'GlobalAveragePool': {
      const out = value([N, 1, 1, C]);
      for (const [i, d] of x.data.entries()) out.data[Math.floor(i / (H * W * C)) * C + (i % C)]! += d / (H * W);
      return out;
    }
    case 'Subsample':
      return fill(
        Math.ceil(H / node.stride),
        Math.ceil(W / node.stride),
        C,
        (n, i, j, c) => x.data[at(x, n, i * node.stride, j * node.stride, c)]!,
      );
    case 'PadChannels':
      return fill(H, W, node.before + C + node.after, (n, i, j, c) =>
        c < node.before || c >= node.before + C ? 0 : x.data[at(x, n, i, j, c - node.before)]!,
      );
    case 'Dense':
      return fill(1, 1, node.units, (n, _i, _j, o) => {
        let sum = weight('bias')[o]!;
        for (let c = 0; c < C; c++) sum += x.data[n * C + c]! * weight('weight')[o * C + c]!;
        return sum;
      });
  }
}

function referenceLoss(weights: Parameters): number {
  const { data } = reference(weights, true).logits;
  let loss = 0;
  for (const [n, label] of labels.entries()) {
    const row = [...data.subarray(n * 3, n * 3 + 3)];
    const total = Math.log(row.reduce((a, z) => a + Math.exp(z), 0));
    for (const [c, z] of row.entries()) loss -= ((c === label ? 1 - SMOOTHING : 0) + SMOOTHING / 3) * (z - total);
  }
  return loss / BATCH;
}

/** Weights with norms away from 1 and 0. */
function someWeights(): Weights {
  const weights = initializeWeights(graph, 3);
  for (const [name, { data }] of weights) {
    for (let i = 0; i < data.length; i++) {
      if (name.endsWith('running_var')) data[i]! += random.uniform();
      else data[i]! += 0.3 * random.normal();
    }
  }
  return weights;
}

function assertNear(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what: string): void {
  assert.is(actual.length, expected.length, what);
  for (let i = 0; i < actual.length; i++) {
    const bound = tolerance * (1 + Math.abs(expected[i]!));
    assert.ok(Math.abs(actual[i]! - expected[i]!) <= bound, `${what}[${i}] is ${actual[i]}, not ${expected[i]}`);
  }
}

// ------------------------------------------------------------------------------------------------

it('infers what plain loops in float64 compute', () => {
  const weights = someWeights();
  const inference = createInference(graph, weights, normalization);
  assertNear(inference.logits(pixels, BATCH), reference(weights, false).logits.data, 1e-5, 'logits');
  inference.release();
});

it('has the gradients that finite differences of the float64 loops give, for every parameter', () => {
  const weights = someWeights();
  const engine = engineOf(weights);
  const { loss, gradients } = engine.gradients(pixels, labels);
  engine.release();
  assertNear([loss], [referenceLoss(weights)], 1e-6, 'loss');
  for (const [name, { data }] of gradients) {
    // Up to 12 elements of each parameter, spread over it.
    for (let i = 0; i < data.length; i += Math.ceil(data.length / 12)) {
      const moved = Float64Array.from(weights.get(name)!.data);
      const parameters = new Map<string, { data: ArrayLike<number> }>(weights).set(name, { data: moved });
      const lossAt = (offset: number) => {
        moved[i] = weights.get(name)!.data[i]! + offset;
        return referenceLoss(parameters);
      };
      // So small that no ReLU and no maximum changes its mind.
      const slope = (lossAt(1e-6) - lossAt(-1e-6)) / 2e-6;
      assert.ok(Math.abs(slope - data[i]!) < 1e-4 * (1 + Math.abs(slope)), `${name}[${i}]: ${data[i]}, not ${slope}`);
    }
  }
});

it('moves running statistics as PyTorch does, with the unbiased variance', () => {
  const weights = someWeights();
  const engine = engineOf(weights);
  engine.step(pixels, labels, 0.1, 0);
  const after = engine.weights();
  engine.release();
  for (const [name, expected] of reference(weights, true).statistics) {
    assertNear(after.get(name)!.data, expected, 1e-5, name);
  }
});

/** Runs `steps` steps and holds the parameters against `update`, which is PyTorch's documented algorithm on one parameter. */
function holdAgainst(
  optimizer: ResolvedOptimizer,
  update: (w: number, g: number, state: number[], step: number, decay: number) => number,
): void {
  const rate = 0.05;
  const expected = someWeights();
  const states = new Map([...expected].map(([name, { data }]) => [name, Array.from(data, () => [0, 0])]));
  const engine = engineOf(expected, { optimizer });
  for (let step = 0; step < 3; step++) {
    const { gradients } = engine.gradients(pixels, labels);
    engine.step(pixels, labels, rate, step);
    const actual = engine.weights();
    for (const [name, { data }] of gradients) {
      const decay = name.endsWith('weight') && !name.startsWith('n') ? optimizer.weightDecay : 0;
      const w = expected.get(name)!.data;
      for (let i = 0; i < data.length; i++) w[i] = update(w[i]!, data[i]!, states.get(name)![i]!, step, decay);
      assertNear(actual.get(name)!.data, w, 2e-5, `${name} after step ${step}`);
    }
  }
  engine.release();
}

it('takes steps of SGD with Nesterov momentum and coupled decay as PyTorch documents them', () => {
  for (const nesterov of [true, false]) {
    holdAgainst({ ...sgd, nesterov, weightDecay: 0.1 }, (w, gradient, state, _step, decay) => {
      const g = gradient + decay * w;
      state[0] = 0.9 * state[0]! + g;
      return w - 0.05 * (nesterov ? g + 0.9 * state[0]! : state[0]!);
    });
  }
});

it('takes steps of AdamW with decoupled decay as PyTorch documents them', () => {
  const adamw = { beta1: 0.8, beta2: 0.95, epsilon: 1e-3, weightDecay: 0.2, decayNormsAndBiases: false };
  holdAgainst({ type: 'AdamW', ...adamw }, (w, g, state, step, decay) => {
    state[0] = adamw.beta1 * state[0]! + (1 - adamw.beta1) * g;
    state[1] = adamw.beta2 * state[1]! + (1 - adamw.beta2) * g * g;
    const first = state[0]! / (1 - adamw.beta1 ** (step + 1));
    const second = state[1]! / (1 - adamw.beta2 ** (step + 1));
    return w - 0.05 * decay * w - (0.05 * first) / (Math.sqrt(second) + adamw.epsilon);
  });
});

it('scales gradients to the global norm that is allowed', () => {
  const weights = someWeights();
  const plain = { ...sgd, momentum: 0, nesterov: false, weightDecay: 0 };
  const moves = [undefined, 0.01].map((gradientClipNorm) => {
    const engine = engineOf(weights, { optimizer: plain, gradientClipNorm });
    const { gradients } = engine.gradients(pixels, labels);
    engine.step(pixels, labels, 1, 0);
    const after = engine.weights();
    engine.release();
    let squares = 0;
    for (const name of gradients.keys()) {
      for (const [i, w] of after.get(name)!.data.entries()) squares += (w - weights.get(name)!.data[i]!) ** 2;
    }
    return Math.sqrt(squares);
  });
  assert.ok(moves[0]! > 0.1, `unclipped ${moves[0]}`);
  assertNear([moves[1]!], [0.01], 1e-4, 'clipped');
});

it('gives the same bits when it is run again, and when it goes on from saved state', () => {
  const steps = (engine: ReturnType<typeof engineOf>, from: number, to: number) => {
    for (let step = from; step < to; step++) engine.step(pixels, labels, 0.1, step);
    return engine.weights();
  };
  const start = someWeights();
  for (const optimizer of [
    sgd,
    { ...sgd, type: 'AdamW', beta1: 0.9, beta2: 0.99, epsilon: 1e-8 } as ResolvedOptimizer,
  ]) {
    const whole = engineOf(start, { optimizer });
    const undisturbed = steps(whole, 0, 4);
    const first = engineOf(start, { optimizer });
    const halfway = steps(first, 0, 2);
    const second = engineOf(halfway, { optimizer });
    second.restoreOptimizer(first.optimizerState());
    assert.equal(steps(second, 2, 4), undisturbed);
    for (const engine of [whole, first, second]) engine.release();
  }
});

it('updates nothing when the loss is not finite', () => {
  const weights = someWeights();
  weights.get('fc.weight')!.data[0] = Number.POSITIVE_INFINITY;
  const engine = engineOf(weights);
  assert.not.ok(Number.isFinite(engine.step(pixels, labels, 0.1, 0)));
  assert.equal(engine.weights().get('c1.weight'), weights.get('c1.weight'));
  engine.release();
});

it('holds no more tensors after a hundred steps than after two, and none after release', () => {
  const before = tensorCount();
  const engine = engineOf(someWeights(), { gradientClipNorm: 0.1 });
  const counts = Array.from({ length: 100 }, (_, step) => {
    engine.step(pixels, labels, 0.01, step);
    engine.evaluate(pixels, labels);
    return tensorCount();
  });
  assert.is(counts[99], counts[1]);
  engine.gradients(pixels, labels);
  engine.weights();
  engine.restoreOptimizer(engine.optimizerState());
  assert.is(tensorCount(), counts[1]);
  engine.release();
  assert.is(tensorCount(), before);
});

it('names the weight that is missing, unknown or of another shape', () => {
  const without = someWeights();
  without.delete('c2.weight');
  assert.throws(() => engineOf(without), /c2\.weight \[6,4,3,3\] is missing/);
  const more = someWeights().set('zz.weight', { shape: [1], data: new Float32Array(1) });
  assert.throws(() => engineOf(more), /no zz\.weight/);
});

it.run();
