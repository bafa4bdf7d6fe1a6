import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Model } from '../../trainer-image/contract.ts';
import { evaluate } from '../../trainer-image/export/reference.ts';
import { exampleCard, exampleModel, SOURCE } from './example-model.ts';
import { findPython, runPython } from './python.ts';

/** Checks a file as ONNX's own tools do, runs it on the pixels given as JSON [N][C·H·W], and prints what both said. */
const CHECK = `
import json, sys, onnx, onnxruntime, numpy
path, pixels = sys.argv[1], json.loads(sys.argv[2])
model = onnx.load(path)
onnx.checker.check_model(model, full_check=True)
inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
image = session.get_inputs()[0]
dtype = numpy.uint8 if image.type == 'tensor(uint8)' else numpy.float32
shape = [len(pixels)] + image.shape[1:]
logits = session.run(None, {image.name: numpy.array(pixels, dtype).reshape(shape)})[0]
print(json.dumps({
  'ir': model.ir_version, 'opset': [[o.domain, o.version] for o in model.opset_import], 'producer': model.producer_name,
  'ops': sorted({n.op_type for n in model.graph.node}),
  'inputs': [[i.name, i.type, i.shape] for i in session.get_inputs()],
  'outputs': [[o.name, o.type, o.shape] for o in session.get_outputs()],
  'metadata': session.get_modelmeta().custom_metadata_map, 'logits': logits.astype(float).tolist(),
}))
`;

interface Checked {
  ir: number;
  opset: [string, number][];
  producer: string;
  ops: string[];
  inputs: [string, string, (string | number)[]][];
  outputs: [string, string, (string | number)[]][];
  metadata: Record<string, string>;
  logits: number[][];
}

const found = await findPython();
const it = suite('exported ONNX');

if ('missing' in found) {
  console.log(`SKIP: ${found.missing}`);
} else {
  const folder = await mkdtemp(join(tmpdir(), 'fovea-onnx-'));
  it.after(() => rm(folder, { recursive: true }));

  const cases = [
    { name: 'ResNet20', colour: 'RGB', stem: 'Auto', height: 16, width: 12, opset: 17 },
    { name: 'ResNet20', colour: 'Grey', stem: 'Auto', height: 28, width: 28, opset: 13 },
    { name: 'ResNet18', colour: 'RGB', stem: 'Large', height: 40, width: 33, opset: 21 },
    { name: 'ResNet18', colour: 'Grey', stem: 'Small', height: 8, width: 8, opset: 19 },
  ] as const;
  const IR_VERSIONS: Record<number, number> = { 13: 7, 17: 8, 19: 9, 21: 10 };

  for (const { name, colour, stem, height, width, opset } of cases) {
    for (const [dynamicBatch, foldNormalization] of [
      [true, true],
      [false, false],
    ] as const) {
      const form = `${dynamicBatch ? 'open' : 'fixed'} batch, ${foldNormalization ? 'uint8' : 'normalized'} input`;
      it(`passes ONNX's full check and gives the reference's logits: ${name} ${colour} ${height}×${width}, opset ${opset}, ${form}`, async () => {
        const model = Model.parse({ name, stem, inputSize: { height, width } });
        const card = exampleCard(model, colour);
        const { mean, std } = card.preprocessing;
        const channels = mean.length;
        const { graph, weights, bytes } = exampleModel(card, { opset, dynamicBatch, foldNormalization });
        const path = join(folder, `${name}-${opset}-${dynamicBatch}.onnx`);
        await writeFile(path, bytes);

        const count = dynamicBatch ? 2 : 1;
        const area = height * width;
        const pixel = (n: number, c: number, i: number) => (n * 7919 + c * 104729 + i * 31) % 256;
        const normalized = (n: number, c: number, i: number) => (pixel(n, c, i) / 255 - mean[c]!) / std[c]!;
        const planar = Array.from({ length: count }, (_, n) =>
          Array.from({ length: channels * area }, (_, at) =>
            (foldNormalization ? pixel : normalized)(n, Math.floor(at / area), at % area),
          ),
        );
        const checked = (await runPython(found.python, CHECK, [path, JSON.stringify(planar)])) as Checked;

        assert.equal(checked.opset, [['', opset]]);
        assert.is(checked.ir, IR_VERSIONS[opset]);
        assert.is(checked.producer, 'fovea');
        assert.not.ok(checked.ops.includes('BatchNormalization'));
        const batch = dynamicBatch ? 'N' : 1;
        const type = foldNormalization ? 'tensor(uint8)' : 'tensor(float)';
        assert.equal(checked.inputs, [['image', type, [batch, channels, height, width]]]);
        assert.equal(checked.outputs, [['logits', 'tensor(float)', [batch, card.classes.length]]]);
        assert.equal(JSON.parse(checked.metadata['fovea.preprocessing']!), card.preprocessing);
        assert.equal(JSON.parse(checked.metadata['fovea.classes']!), card.classes);
        assert.is(checked.metadata['fovea.source'], SOURCE);
        assert.is(checked.metadata['fovea.dataset'], card.dataset);

        for (let n = 0; n < count; n++) {
          const interleaved = Float64Array.from({ length: channels * area }, (_, at) =>
            normalized(n, at % channels, Math.floor(at / channels)),
          );
          const expected = evaluate(graph, weights, interleaved);
          const got = checked.logits[n]!;
          const difference = Math.hypot(...got.map((v, i) => v - expected[i]!)) / Math.hypot(...expected);
          assert.ok(difference < 1e-5, `logits differ by ${difference}`);
        }
      });
    }
  }

  it('gives the same bytes for the same model', () => {
    const card = exampleCard(Model.parse({ name: 'ResNet20' }), 'RGB');
    const build = () => Buffer.from(exampleModel(card).bytes);
    assert.ok(build().equals(build()));
  });

  it.run();
}
