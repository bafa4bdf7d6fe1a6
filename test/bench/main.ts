/** `npm run bench -- <name>`: measurements that are too long, or too dependent on a quiet machine, to be tests. */
import { argv, exit } from 'node:process';
import { benchGateway } from './gateway.ts';
import { benchScale } from './scale.ts';
import { benchServing } from './serving.ts';
import { benchStep } from './step.ts';
import { benchSurvivors } from './survivors.ts';

const BENCHES: Record<string, { what: string; run: () => Promise<boolean> }> = {
  gateway: { what: 'requests through the gateway, against straight to a predictor', run: benchGateway },
  scale: { what: 'two ranks of one core each, training together against apart', run: benchScale },
  serving: { what: '10,000 requests while the model and the replicas change', run: benchServing },
  step: { what: 'one training step of ResNet-18 on one core, against PyTorch', run: benchStep },
  survivors: { what: '25 training jobs with 4 killed workers each', run: benchSurvivors },
};

const name = argv[2] ?? '';
const bench = Object.hasOwn(BENCHES, name) ? BENCHES[name] : undefined;
if (!bench) {
  console.error('usage: npm run bench -- <name>, where <name> is one of');
  for (const [known, { what }] of Object.entries(BENCHES)) console.error(`  ${known.padEnd(10)} ${what}`);
  exit(2);
}
exit((await bench.run()) ? 0 : 1);
