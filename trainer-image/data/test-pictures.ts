/** What tests of the trainer share: real pictures, temporary folders, a context, and what an action throws. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import sharp from 'sharp';
import { type Header, pack } from 'tar-stream';
import type { Context } from '../command.ts';
import { PrepareTask } from '../contract.ts';
import { TrainerError } from '../errors.ts';
import { openStore } from '../store.ts';

const temporary: string[] = [];
process.on('exit', () => {
  for (const folder of temporary) rmSync(folder, { recursive: true, force: true });
});

/** Removed when the process ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'fovea-test-'));
  temporary.push(folder);
  return folder;
}

/** A picture of its own for each seed: 12 × 8 pixels, RGB, unless said otherwise. */
export function makePicture(
  seed: number,
  format: 'png' | 'jpeg' | 'webp' | 'gif' = 'png',
  [width, height] = [12, 8],
): Promise<Buffer> {
  const pixels = Buffer.alloc(width * height * 3);
  for (let i = 0; i < pixels.length; i++)
    pixels[i] = (Math.imul(i + 1, 2654435761) ^ Math.imul(seed + 1, 40503)) >>> 11;
  return sharp(pixels, { raw: { width, height, channels: 3 } })
    [format]()
    .toBuffer();
}

export function writeFiles(root: string, files: Record<string, Uint8Array | string>): void {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  }
}

/** `perClass` PNGs for each class, as `{"cat/0.png": ...}`; no two alike. */
export async function makeClasses(classes: string[], perClass: number): Promise<Record<string, Buffer>> {
  const files: Record<string, Buffer> = {};
  let seed = 0;
  for (const name of classes) {
    for (let i = 0; i < perClass; i++) files[`${name}/${i}.png`] = await makePicture(seed++);
  }
  return files;
}

export async function makeTar(entries: (Partial<Header> & { name: string; content?: Uint8Array })[]): Promise<Buffer> {
  const archive = pack();
  for (const { content, ...header } of entries) archive.entry(header, Buffer.from(content ?? []));
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export function tarOf(files: Record<string, Uint8Array>): Promise<Buffer> {
  return makeTar(Object.entries(files).map(([name, content]) => ({ name, content })));
}

/** A context with a store of its own; the stages that are reported are kept. */
export async function testContext(signal: AbortSignal = new AbortController().signal) {
  const stages = new Set<string>();
  const context: Context = {
    store: await openStore(temporaryFolder()),
    scratch: temporaryFolder(),
    signal,
    env: {},
    reporter: {
      report: ({ stage }) => stages.add(stage),
      note() {},
      async flush() {},
    },
  };
  return { context, stages };
}

/** What `action` throws, which must be an error made on purpose. */
export async function thrownBy(action: () => unknown): Promise<TrainerError> {
  try {
    await action();
  } catch (error) {
    if (error instanceof TrainerError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** A prepare task on a local path, other fields as given or by default. */
export function prepareTask(path: string, fields: Record<string, unknown> = {}): PrepareTask {
  return PrepareTask.parse({ kind: 'prepare', run: 'test', source: { type: 'Path', path }, ...fields });
}
