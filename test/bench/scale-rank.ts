/**
 * One rank of the scale bench: takes steps of a network on pictures of noise, alone or with a peer, in the process it is started in.
 * `scale-rank.ts <rank> <world> <model> <batch> <steps> <network>` prints the times at which its steps were done, in ms since the epoch.
 */
import { argv, exit } from 'node:process';
import { openRing } from '../../trainer-image/collectives/index.ts';
import { Model } from '../../trainer-image/contract.ts';
import { loadEngine } from '../../trainer-image/engine/tfjs.ts';
import { createTrainingEngine } from '../../trainer-image/engine/training.ts';
import { createModel } from '../../trainer-image/models/factory.ts';
import { initializeWeights } from '../../trainer-image/models/weights.ts';
import { createSharedStep } from '../../trainer-image/train/exchange.ts';

const [rank, world, , batch, steps] = argv.slice(2).map(Number) as [number, number, number, number, number];
const [name, network] = [argv[4], argv[7]];
loadEngine(1);
const graph = createModel(Model.parse({ name }), { channels: 3, classes: 10 });
const engine = createTrainingEngine(graph, initializeWeights(graph, 0), {
  mean: [0.5, 0.5, 0.5],
  std: [0.25, 0.25, 0.25],
  labelSmoothing: 0,
  optimizer: { type: 'SGD', momentum: 0.9, nesterov: true, weightDecay: 1e-4, decayNormsAndBiases: false },
});
const pixels = Uint8Array.from({ length: batch * 32 * 32 * 3 }, (_, i) => (i * 7919 + rank) % 251);
const labels = Int32Array.from({ length: batch }, (_, i) => i % 10);

const alone = async (step: number) => void engine.step(pixels, labels, 0.05, step);
const together = async () => {
  const members = Array.from({ length: world }, (_, r) => ({
    rank: r,
    pod: `rank-${r}`,
    address: `${network}.${r + 1}`,
  }));
  const ring = await openRing({ generation: 1, rank, members, secret: Buffer.alloc(32, 7) });
  const share = createSharedStep(engine, ring);
  return async (step: number) =>
    void (await share({ pixels, labels, batchSize: world * batch }, 0.05, step, () => false));
};
const take = world === 1 ? alone : await together();
const times: number[] = [];
for (let step = 0; step <= steps; step++) {
  await take(step);
  times.push(performance.timeOrigin + performance.now());
}
console.log(JSON.stringify(times));
exit(0);
