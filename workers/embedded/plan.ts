/** What of the stack is embedded, on which ports, in which folders: read from the environment, before anything starts. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { redact } from '../../activities/secrets.ts';
import { readPort, readSettings } from '../settings.ts';
import { claimPort } from './free_port.ts';

export interface Plan {
  home: string;
  assetData: string;
  apiHost: string;
  apiToken: string | undefined;
  namespace: string;
  /** Undefined = not embedded: the environment names another. */
  ports: {
    api: number;
    temporal?: number;
    temporalUi?: number;
    clickhouse?: number;
    postgres?: number;
    assetApi?: number;
  };
  demo: boolean;
  environment: NodeJS.ProcessEnv;
}

/** Reads the environment and claims the ports. Errors: `configuration`, `port_in_use`. */
export async function makePlan(demo: boolean, environment: NodeJS.ProcessEnv = process.env): Promise<Plan> {
  const settings = readSettings(environment);
  const claim = (variable: string, usual: number, embedded = true, host?: string) =>
    embedded ? claimPort(readPort(environment, variable, usual), variable, host) : undefined;
  const temporal = !environment.TEMPORAL_ADDRESS;
  return {
    home: settings.home,
    assetData: settings.assetData,
    apiHost: settings.apiHost,
    apiToken: settings.apiToken,
    namespace: settings.temporalNamespace,
    ports: {
      api: await claimPort(readPort(environment, 'SLUICE_API_PORT', 8000), 'SLUICE_API_PORT', settings.apiHost),
      temporal: await claim('SLUICE_TEMPORAL_PORT', 7233, temporal),
      temporalUi: await claim('SLUICE_TEMPORAL_UI_PORT', 8233, temporal),
      clickhouse: await claim('SLUICE_CLICKHOUSE_PORT', 8123, !environment.CLICKHOUSE_URL),
      postgres: await claim('SLUICE_POSTGRES_PORT', 5433, !environment.DATABASE_URL),
      assetApi: await claim('SLUICE_ASSET_API_PORT', 8088, !environment.ASSET_API_URL),
    },
    demo,
    environment,
  };
}

/** Where the parts are reached. */
export interface Addresses {
  api: string;
  temporal: string;
  /** Empty when another's Temporal is used: its UI is not known. */
  temporalUi: string;
  clickhouse: string;
  /** With password where it is embedded. */
  postgres: string;
  assetApi: string;
}

/** The addresses; `postgres` is the embedded server's connection string, if it is embedded. */
export function addressesOf(plan: Plan, postgres: string | undefined): Addresses {
  const { ports, environment } = plan;
  const local = (port: number) => `http://127.0.0.1:${port}`;
  const open = plan.apiHost === '0.0.0.0' || plan.apiHost === '::';
  const host = open ? '127.0.0.1' : plan.apiHost.includes(':') ? `[${plan.apiHost}]` : plan.apiHost;
  return {
    api: `http://${host}:${ports.api}`,
    temporal: ports.temporal ? `127.0.0.1:${ports.temporal}` : (environment.TEMPORAL_ADDRESS ?? ''),
    temporalUi: ports.temporalUi ? local(ports.temporalUi) : '',
    clickhouse: ports.clickhouse ? local(ports.clickhouse) : (environment.CLICKHOUSE_URL ?? ''),
    postgres: postgres ?? redact(environment.DATABASE_URL ?? ''),
    assetApi: ports.assetApi ? local(ports.assetApi) : (environment.ASSET_API_URL ?? ''),
  };
}

/** The environment of the parts: the caller's, and where the embedded parts are. */
export function partEnvironment(plan: Plan, addresses: Addresses, secretKey: string): NodeJS.ProcessEnv {
  const { environment } = plan;
  return {
    ...environment,
    // Kept out when it was not set: asset_data is the project's then.
    ...(environment.SLUICE_HOME ? { SLUICE_HOME: plan.home } : {}),
    DATABASE_URL: environment.DATABASE_URL || addresses.postgres,
    CLICKHOUSE_URL: addresses.clickhouse,
    TEMPORAL_ADDRESS: addresses.temporal,
    TEMPORAL_NAMESPACE: plan.namespace,
    ASSET_API_URL: addresses.assetApi,
    SLUICE_API_PORT: String(plan.ports.api),
    ...(plan.ports.temporalUi ? { SLUICE_TEMPORAL_UI_PORT: String(plan.ports.temporalUi) } : {}),
    ...(plan.ports.assetApi ? { SLUICE_ASSET_API_PORT: String(plan.ports.assetApi) } : {}),
    SLUICE_SECRET_KEY: secretKey,
  };
}

/** The key that seals connection strings: the caller's, or one made once and kept in the state folder. */
export function keepSecretKey(plan: Plan): string {
  if (plan.environment.SLUICE_SECRET_KEY) return plan.environment.SLUICE_SECRET_KEY;
  const file = path.join(plan.home, 'secret.key');
  try {
    const key = readFileSync(file, 'utf8').trim();
    if (key) return key;
  } catch {
    // Made below.
  }
  const key = randomBytes(32).toString('base64url');
  mkdirSync(plan.home, { recursive: true });
  writeFileSync(file, `${key}\n`, { mode: 0o600 });
  return key;
}
