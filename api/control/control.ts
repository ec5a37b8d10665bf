/**
 * What the REST API, the CLI and the console stand on: clients of Temporal and ClickHouse and the settings. It keeps no
 * state of its own but short-lived caches, so any number may run beside each other.
 */
import { Client, Connection } from '@temporalio/client';
import { ClickHouse } from '../../activities/load/clickhouse.ts';
import { readSettings, type Settings } from '../../workers/settings.ts';
import { retries } from '../../workers/temporal_client.ts';
import { type Caller, identityOf, thisUser } from './caller.ts';

export interface Control extends AsyncDisposable {
  settings: Settings;
  temporal: Client;
  /** Reads only: Sluice's own tables, and the statements of people, each with its own limits. */
  clickhouse: ClickHouse;
  /** Who asks for what is asked for: recorded with it. */
  caller: Caller;
  /** What tells an order from others, so that the same one, sent again, is carried out once. */
  idempotencyKey?: string | undefined;
}

/** Makes the clients. Connects at first use, so it works while the other side is still away. */
export function openControl(
  settings: Settings = readSettings(),
  caller: Caller = { via: 'cli', who: thisUser() },
): Control {
  const connection = Connection.lazy({
    address: settings.temporalAddress,
    connectTimeout: 2_000,
    interceptors: retries,
  });
  const temporal = new Client({ connection, namespace: settings.temporalNamespace, identity: identityOf(caller) });
  const clickhouse = new ClickHouse({
    url: settings.clickhouseUrl,
    database: settings.clickhouseDatabase,
    role: 'read',
  });
  return {
    settings,
    temporal,
    clickhouse,
    caller,
    async [Symbol.asyncDispose]() {
      await Promise.allSettled([connection.close(), clickhouse.close()]);
    },
  };
}

/** A page of Temporal UI about a workflow. */
export function workflowUrl(settings: Settings, workflowId: string, runId?: string): string {
  return `${namespaceUrl(settings)}/workflows/${encodeURIComponent(workflowId)}${runId ? `/${runId}/history` : ''}`;
}

/** A page of Temporal UI about a schedule. */
export function scheduleUrl(settings: Settings, scheduleId: string): string {
  return `${namespaceUrl(settings)}/schedules/${encodeURIComponent(scheduleId)}`;
}

function namespaceUrl(settings: Settings): string {
  return `${settings.temporalUi}/namespaces/${encodeURIComponent(settings.temporalNamespace)}`;
}
