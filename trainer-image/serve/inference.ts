/** ONNX Runtime in a thread of its own. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { InferenceSession } from 'onnxruntime-node';
import type { Pixels, RunResult } from './batcher.ts';

export type ValueMetadata = InferenceSession.ValueMetadata;

export interface WorkerData {
  bytes: Uint8Array;
  threads: number;
}
export type ToWorker = { pixels: Pixels; shape: number[] } | 'close';
export type FromWorker =
  | { inputs: ValueMetadata[]; outputs: ValueMetadata[] }
  | { refused: string }
  | { logits: Float32Array<ArrayBuffer>; dims: number[]; computeTime: number }
  | { failed: string };

export interface Inference {
  inputs: readonly ValueMetadata[];
  outputs: readonly ValueMetadata[];
  /**
   * Runs the network's one input and gives its first output. One run at a time.
   * @param pixels Of `shape`; its memory is handed over.
   * @throws Error with the runtime's words.
   */
  run(pixels: Pixels, shape: number[]): Promise<RunResult & { dims: number[] }>;
  /** Rejects if the thread ends by itself; never resolves. */
  broken: Promise<never>;
  close(): Promise<void>;
}

/**
 * Loads a model.
 * @param threads Threads of one operator (intra-op).
 * @throws RangeError with ONNX Runtime's words if it does not take the file.
 */
export async function openInference(bytes: Uint8Array, threads: number): Promise<Inference> {
  const worker = new Worker(new URL('./inference-worker.ts', import.meta.url), {
    workerData: { bytes, threads } satisfies WorkerData,
  });
  let closing = false;
  const broken = new Promise<never>((_, reject) => {
    worker.on('error', reject);
    worker.on('exit', (code) => {
      if (!closing) reject(new Error(`the inference thread ended with ${code}`));
    });
  });
  // Whoever waits for it sees it; nobody may be waiting yet.
  broken.catch(() => {});
  const answer = async () => {
    const [message] = (await Promise.race([once(worker, 'message'), broken])) as [FromWorker];
    return message;
  };

  const loaded = await answer();
  if ('refused' in loaded) {
    closing = true;
    await worker.terminate();
    throw new RangeError(loaded.refused);
  }
  if (!('inputs' in loaded)) throw new Error('the inference thread answered out of turn');
  return {
    ...loaded,
    broken,
    async run(pixels, shape) {
      worker.postMessage({ pixels, shape } satisfies ToWorker, [pixels.buffer as ArrayBuffer]);
      const result = await answer();
      if ('logits' in result) return result;
      throw new Error('failed' in result ? result.failed : 'the inference thread answered out of turn');
    },
    async close() {
      closing = true;
      const exited = once(worker, 'exit');
      worker.postMessage('close' satisfies ToWorker);
      await exited;
    },
  };
}
