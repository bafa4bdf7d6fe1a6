/** `npm run cluster -- up|down|status|env|logs`: a disposable Kubernetes cluster on this machine. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import process, { argv, env, exit, stderr, stdout } from 'node:process';
import { parseArgs } from 'node:util';
import { type ClusterStatus, DEFAULT_NAME, down, find, logFile, status, up } from './cluster.ts';
import { progressOn } from './progress.ts';
import { COMPONENTS, clusterNames, folderOf, MOUNT_MODES, type MountMode } from './record.ts';

const USAGE = `usage: npm run cluster -- COMMAND [--name NAME]

  up       bring the cluster up, from whatever state it is in; the first time builds it (minutes)
             --images FILE   which command stands for which image (default: fovea's own images)
             --mount-mode M  how pods see their mounts: ${MOUNT_MODES.join(', ')} (default: auto); counts when the node starts
  down     end everything that runs of it; objects and volumes are kept
             --purge         and remove them
  status   each component with process, uptime, port and health; exit code 1 if one is not healthy
             --json
  env      variables for a shell: eval "$(npm run --silent cluster -- env)"
             --json
  logs     the last lines of all components, or of one: ${COMPONENTS.join(', ')}
             -f              and what follows

NAME is ${DEFAULT_NAME} if not given; clusters of different names are apart.
`;

const OPTIONS = {
  name: { type: 'string', default: DEFAULT_NAME },
  images: { type: 'string' },
  'mount-mode': { type: 'string' },
  purge: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  follow: { type: 'boolean', short: 'f', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

/** Options that a command takes beside --name. */
const TAKES: Record<string, readonly string[]> = {
  up: ['images', 'mount-mode'],
  down: ['purge'],
  status: ['json'],
  env: ['json'],
  logs: ['follow'],
};

async function main(): Promise<number> {
  const { values, positionals, tokens } = parseArgs({
    args: argv.slice(2),
    options: OPTIONS,
    allowPositionals: true,
    tokens: true,
  });
  const [verb, ...words] = positionals;
  if (values.help || verb === undefined) {
    (values.help ? stdout : stderr).write(USAGE);
    return values.help ? 0 : 2;
  }
  const takes = TAKES[verb];
  if (!takes) throw new Error(`there is no command ${verb}; --help lists them`);
  for (const token of tokens) {
    if (token.kind === 'option' && token.name !== 'name' && !takes.includes(token.name)) {
      throw new Error(`${verb} takes no ${token.rawName}; --help says what it takes`);
    }
  }
  if (words.length > (verb === 'logs' ? 1 : 0)) throw new Error(`${verb}: what is ${words.join(' ')}?`);

  const { name } = values;
  switch (verb) {
    case 'up':
      return bringUp(name, values.images, mountModeOf(values['mount-mode']));
    case 'down': {
      const found = await down({ name, purge: values.purge });
      stdout.write(
        found
          ? `${name} is down${values.purge ? ', and nothing of it is left' : ''}\n`
          : `There is no cluster ${name}\n`,
      );
      return 0;
    }
    case 'status':
      return show(await status({ name }), name, values.json);
    case 'env':
      return printEnvironment(name, values.json);
    default:
      return showLogs(name, words[0], values.follow);
  }
}

/** @throws Error naming the modes if it is none */
function mountModeOf(word: string | undefined): MountMode | undefined {
  const mode = MOUNT_MODES.find((known) => known === word);
  if (word !== undefined && !mode) throw new Error(`--mount-mode=${word}: want one of ${MOUNT_MODES.join(', ')}`);
  return mode;
}

async function bringUp(name: string, images: string | undefined, mountMode: MountMode | undefined): Promise<number> {
  const progress = progressOn(stderr);
  const started = performance.now();
  const { kubeconfig } = await up({ name, images, mountMode, progress });
  progress.say(`${name} is up after ${((performance.now() - started) / 1000).toFixed(1)} s: KUBECONFIG=${kubeconfig}`);
  return 0;
}

async function show(found: ClusterStatus | undefined, name: string, json: boolean): Promise<number> {
  if (!found) {
    const others = await clusterNames();
    throw new Error(`there is no cluster ${name}${others.length > 0 ? `, only ${others.join(', ')}` : ''}`);
  }
  if (json) stdout.write(`${JSON.stringify(found, undefined, 2)}\n`);
  else stdout.write(table(found));
  return found.components.every(({ problem }) => problem === undefined) ? 0 : 1;
}

function table({ components, server, dir }: ClusterStatus): string {
  const rows = [
    ['COMPONENT', 'PID', 'UPTIME', 'PORT', 'HEALTH'],
    ...components.map(({ component, pid, uptimeSeconds, port, problem }) => [
      component,
      `${pid ?? '-'}`,
      uptimeSeconds === undefined ? '-' : duration(uptimeSeconds),
      `${port}`,
      problem ?? 'healthy',
    ]),
  ];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\n\nserver  ${server}\nfolder  ${dir}\n`;
}

/** As kubectl writes ages: the two largest units. */
function duration(seconds: number): string {
  const units: [number, string][] = [
    [86_400, 'd'],
    [3600, 'h'],
    [60, 'm'],
    [1, 's'],
  ];
  const first = Math.max(
    0,
    units.findIndex(([size]) => seconds >= size),
  );
  let rest = Math.floor(seconds);
  const parts = (seconds < 1 ? units.slice(-1) : units.slice(first, first + 2)).map(([size, unit]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return `${count}${unit}`;
  });
  return parts.join('');
}

async function printEnvironment(name: string, json: boolean): Promise<number> {
  const cluster = await find({ name });
  if (!cluster) throw new Error(`there is no cluster ${name}: bring it up first`);
  const variables = { KUBECONFIG: cluster.kubeconfig, PATH: `${cluster.tools}:${env.PATH ?? ''}` };
  if (json) {
    stdout.write(`${JSON.stringify(variables, undefined, 2)}\n`);
    return 0;
  }
  const quote = (value: string) => `'${value.replaceAll("'", "'\\''")}'`;
  // The shell's own PATH, and not that of npm, which has put folders of its own in front.
  stdout.write(`export KUBECONFIG=${quote(variables.KUBECONFIG)}\nexport PATH=${quote(cluster.tools)}:"$PATH"\n`);
  return 0;
}

async function showLogs(name: string, component: string | undefined, follow: boolean): Promise<number> {
  const wanted = component === undefined ? COMPONENTS : COMPONENTS.filter((c) => c === component);
  if (wanted.length === 0) throw new Error(`there is no component ${component}, only ${COMPONENTS.join(', ')}`);
  const files = wanted.map((c) => logFile(folderOf(name), c));
  const tail = spawn('tail', ['-n', '100', ...(follow ? ['-F'] : []), ...files], { stdio: 'inherit' });
  // One that is not from the terminal reaches this process alone.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, () => tail.kill(signal));
  const [code] = await once(tail, 'close');
  return code ?? 1;
}

try {
  exit(await main());
} catch (error) {
  stderr.write(`${error instanceof Error ? error.message : error}\n`);
  exit(2);
}
