/** The thread in which ONNX Runtime runs: its `run` computes synchronously, and the server must go on answering meanwhile. */
import { parentPort, workerData } from 'node:worker_threads';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { FromWorker, ToWorker, WorkerData } from './inference.ts';

const port = parentPort!;
const { bytes, threads } = workerData as WorkerData;
const post = (message: FromWorker, transfer: ArrayBuffer[] = []) => port.postMessage(message, transfer);
const words = (error: unknown) => (error instanceof Error ? error.message : String(error));

try {
  const session = await InferenceSession.create(bytes, {
    executionProviders: ['cpu'],
    intraOpNumThreads: threads,
    // Errors only; they are thrown as well.
    logSeverityLevel: 3,
    // Waiting threads that spin would burn the CPU share that a pod is billed and throttled by.
    extra: { session: { intra_op: { allow_spinning: '0' } } },
  });
  port.on('message', async (message: ToWorker) => {
    if (message === 'close') {
      await session.release();
      port.close();
      return;
    }
    try {
      const { pixels, shape } = message;
      const tensor =
        pixels instanceof Float32Array ? new Tensor('float32', pixels, shape) : new Tensor('uint8', pixels, shape);
      const started = performance.now();
      const outputs = await session.run({ [session.inputNames[0]!]: tensor });
      const computeTime = performance.now() - started;
      const logits = outputs[session.outputNames[0]!]!;
      // A copy: the runtime's own buffer may be no whole ArrayBuffer to hand over.
      const data = Float32Array.from(logits.data as Float32Array);
      post({ logits: data, dims: [...logits.dims], computeTime }, [data.buffer]);
    } catch (error) {
      post({ failed: words(error) });
    }
  });
  post({ inputs: [...session.inputMetadata], outputs: [...session.outputMetadata] });
} catch (error) {
  post({ refused: words(error) });
}
