/** Asks the service about pictures, and compares what it says with the truth and with the export's own predictions. */
import { Agent, request } from 'undici';
import { z } from 'zod';
import type { LabelledPng } from './pictures.ts';

/** A picture and the label that the service gave it. */
export interface Classified {
  picture: LabelledPng;
  label: string;
  probability: number;
}

const Answer = z.object({ predictions: z.array(z.object({ label: z.string(), probability: z.number() })).min(1) });
const Prediction = z.object({ path: z.string(), label: z.int(), predicted: z.int() });

/** Requests at a time. */
const CONCURRENCY = 16;

/**
 * @param url the service's, as its status has it
 * @throws Error naming the picture, if one is not answered
 */
export async function classifyAll(
  url: string,
  pictures: readonly LabelledPng[],
  onAnswer: (done: number) => void,
): Promise<Classified[]> {
  const agent = new Agent({ connections: CONCURRENCY });
  const classified: Classified[] = new Array(pictures.length);
  let next = 0;
  let done = 0;
  const worker = async () => {
    while (next < pictures.length) {
      const index = next++;
      const picture = pictures[index]!;
      const { statusCode, body } = await request(`${url}:classify`, {
        dispatcher: agent,
        method: 'POST',
        headers: { 'content-type': 'image/png' },
        body: picture.png,
      });
      const text = await body.text();
      if (statusCode !== 200) throw new Error(`${picture.path} was answered ${statusCode}: ${text}`);
      const [best] = Answer.parse(JSON.parse(text)).predictions;
      classified[index] = { picture, ...best! };
      onAnswer(++done);
    }
  };
  try {
    await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  } finally {
    await agent.destroy();
  }
  return classified;
}

/**
 * The export's predictions by path.
 *
 * @param lines the blob: a JSON object a line
 * @param classes names by label index
 */
export function readPredictions(lines: string, classes: readonly string[]): Map<string, string> {
  return new Map(
    lines
      .split('\n')
      .filter(Boolean)
      .map((text) => {
        const { path, predicted } = Prediction.parse(JSON.parse(text));
        return [path, classes[predicted]!];
      }),
  );
}

export interface Comparison {
  total: number;
  /** Share whose label is the true one. */
  accuracy: number;
  /** Share whose label is the one that the export gave it. */
  agreement: number;
}

/** @throws Error naming a picture that the export has no prediction for */
export function compare(classified: readonly Classified[], predictions: ReadonlyMap<string, string>): Comparison {
  let right = 0;
  let same = 0;
  for (const { picture, label } of classified) {
    const predicted = predictions.get(picture.path);
    if (predicted === undefined) throw new Error(`the export has no prediction for ${picture.path}`);
    if (label === picture.className) right += 1;
    if (label === predicted) same += 1;
  }
  const total = classified.length;
  return { total, accuracy: right / total, agreement: same / total };
}
