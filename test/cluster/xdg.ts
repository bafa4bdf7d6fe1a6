/** Where the cluster keeps things: the XDG base directories, below `fovea/`. */
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { env } from 'node:process';

/** The specification ignores values that are not absolute. */
function base(variable: string, fallback: string): string {
  const value = env[variable];
  return join(value && isAbsolute(value) ? value : join(homedir(), fallback), 'fovea');
}

/** Binaries, all of which can be made again. */
export const cacheDir = () => base('XDG_CACHE_HOME', '.cache');

/** The clusters' own state: databases, keys, logs, volumes. */
export const clustersDir = () => join(base('XDG_STATE_HOME', '.local/state'), 'clusters');
