/** Our side of the step bench: `step-engine.ts <batch> <steps>` prints one JSON line. */
import { readFileSync } from 'node:fs';
import { argv } from 'node:process';
import { Model } from '../../trainer-image/contract.ts';
import { engineVersion, loadEngine } from '../../trainer-image/engine/tfjs.ts';
import { createTrainingEngine } from '../../trainer-image/engine/training.ts';
import { createModel } from '../../trainer-image/models/factory.ts';
import { initializeWeights } from '../../trainer-image/models/weights.ts';

const [batch, steps] = argv.slice(2).map(Number) as [number, number];
loadEngine(1);
const graph = createModel(Model.parse({ name: 'ResNet18' }), { channels: 3, classes: 10 });
const engine = createTrainingEngine(graph, initializeWeights(graph, 0), {
  mean: [0.5, 0.5, 0.5],
  std: [0.25, 0.25, 0.25],
  labelSmoothing: 0,
  optimizer: { type: 'SGD', momentum: 0.9, nesterov: true, weightDecay: 1e-4, decayNormsAndBiases: false },
});
const pixels = Uint8Array.from({ length: batch * 32 * 32 * 3 }, (_, i) => (i * 7919) % 251);
const labels = Int32Array.from({ length: batch }, (_, i) => i % 10);
const milliseconds: number[] = [];
const cpuMilliseconds: number[] = [];
for (let step = 0; step <= steps; step++) {
  const start = performance.now();
  const cpu = process.cpuUsage();
  engine.step(pixels, labels, 0.05, step);
  if (step === 0) continue;
  milliseconds.push(performance.now() - start);
  const { user, system } = process.cpuUsage(cpu);
  cpuMilliseconds.push((user + system) / 1000);
}
const peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) / 1000;
console.log(
  JSON.stringify({ version: `TensorFlow ${engineVersion()}`, milliseconds, cpuMilliseconds, peakMegabytes: peak }),
);
