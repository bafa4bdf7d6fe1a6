/**
 * Requests at a steady concurrency through both gateways of a cluster, while the model changes and the replicas go from three to
 * one and back, in the full length.
 */
import { startLine } from '../cluster/line-fixture.ts';
import { changeUnderLoad } from '../cluster/serving-fixture.ts';

const REQUESTS = 10_000;

/** @returns whether every answer was 200 and from one of the two models */
export async function benchServing(): Promise<boolean> {
  await using line = await startLine(`bench-serving-${process.pid}`);
  await line.namespace('serving');
  const { urls, old, fresh, names, asked } = await changeUnderLoad(line, 'serving', REQUESTS);
  const total = [...asked.answers.values()].reduce((a, b) => a + b, 0);
  console.log(`${total} requests through ${urls.length} gateways; the model changed from ${old} to ${fresh}`);
  for (const [answer, count] of asked.answers) console.log(`  ${String(count).padStart(6)}  ${answer}`);
  const known = [...asked.revisions].every((name) => names.includes(name));
  if (!known) console.log(`answered by ${[...asked.revisions]}, of which only ${names} are known`);
  return known && [...asked.answers.keys()].every((answer) => answer === `200 ${old}` || answer === `200 ${fresh}`);
}
