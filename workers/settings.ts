/** What the environment says: one typed reading, used by every process. Names are those of docs/configuration. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { SluiceError } from '../model/errors.ts';

/** The folder of the project itself. */
export const projectFolder = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

export interface Settings {
  /** State folder, absolute. */
  home: string;
  /** Where CSV files of assets are. */
  assetData: string;
  temporalAddress: string;
  temporalNamespace: string;
  taskQueue: string;
  temporalUi: string;
  clickhouseUrl: string;
  clickhouseDatabase: string;
  /** Empty when the key is not known (then nothing can be sealed or opened). */
  secretKey: string;
  logLevel: string;
  /** Rows after which a batch is cut. */
  bufferSize: number;
  /** Milliseconds between two looks at a source's catalog while it streams. */
  lookEvery: number;
  configFolder: string | undefined;
  apiHost: string;
  apiPort: number;
  apiToken: string | undefined;
}

/** Reads the environment; what is missing comes from the running embedded stack's endpoints.json, then from defaults. */
export function readSettings(environment: NodeJS.ProcessEnv = process.env): Settings {
  const home = path.resolve(environment.SLUICE_HOME || path.join(projectFolder, '.sluice'));
  const running = readEndpoints(home);
  const port = readPort(environment, 'SLUICE_API_PORT', 8000);
  return {
    home,
    assetData: environment.SLUICE_HOME ? path.join(home, 'asset_data') : path.join(projectFolder, 'asset_data'),
    temporalAddress: environment.TEMPORAL_ADDRESS || running?.temporal || '127.0.0.1:7233',
    temporalNamespace: environment.TEMPORAL_NAMESPACE || 'default',
    taskQueue: environment.TEMPORAL_TASK_QUEUE || 'sluice',
    temporalUi:
      running?.temporal_ui || `http://127.0.0.1:${readPort(environment, 'SLUICE_TEMPORAL_UI_PORT', 8233) || 8233}`,
    clickhouseUrl: environment.CLICKHOUSE_URL || running?.clickhouse || 'http://127.0.0.1:8123',
    clickhouseDatabase: environment.CLICKHOUSE_DATABASE || 'sluice',
    secretKey: environment.SLUICE_SECRET_KEY || readIfThere(path.join(home, 'secret.key')).trim(),
    logLevel: (environment.LOG_LEVEL || 'INFO').toLowerCase(),
    bufferSize: readCount(environment, 'BUFFER_SIZE', 100_000),
    lookEvery: readCount(environment, 'SLUICE_LOOK_SECONDS', 10) * 1000,
    configFolder: environment.SLUICE_CONFIG_DIR ? path.resolve(environment.SLUICE_CONFIG_DIR) : undefined,
    apiHost: environment.SLUICE_HOST || '127.0.0.1',
    apiPort: running?.api ? Number(new URL(running.api).port) : port,
    apiToken: environment.SLUICE_API_TOKEN || undefined,
  };
}

/** What a running embedded stack wrote about itself. */
export interface Endpoints {
  api: string;
  console: string;
  temporal: string;
  temporal_ui: string;
  clickhouse: string;
  postgres: string;
  asset_api: string;
  pid: number;
  pids: Record<string, number>;
  asset_data: string;
  home: string;
}

export function endpointsFile(home: string): string {
  return path.join(home, 'endpoints.json');
}

/** The running stack's endpoints, or undefined when none runs in this home. */
export function readEndpoints(home: string): Endpoints | undefined {
  const text = readIfThere(endpointsFile(home));
  try {
    return text ? (JSON.parse(text) as Endpoints) : undefined;
  } catch {
    return undefined;
  }
}

/** A port from the environment; 0 means any free one. */
export function readPort(environment: NodeJS.ProcessEnv, name: string, otherwise: number): number {
  const port = readCount(environment, name, otherwise, 0);
  if (port <= 65_535) return port;
  throw new SluiceError('configuration', `${name}=${environment[name]} is not a port`, `Set ${name} to 0…65535.`);
}

function readCount(environment: NodeJS.ProcessEnv, name: string, otherwise: number, least = 1): number {
  const text = environment[name];
  if (text === undefined || text === '') return otherwise;
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new SluiceError(
    'configuration',
    `${name}=${text} is not a whole number from ${least}`,
    `Set ${name} to e.g. ${otherwise}.`,
  );
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** A short name of this state folder, for things of the machine that several stacks share (e.g. socket names). */
export function homeTag(home: string): string {
  return createHash('sha256').update(home).digest('hex').slice(0, 8);
}
