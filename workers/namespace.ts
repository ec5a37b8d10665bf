/** What Sluice needs of a Temporal namespace: its search attributes, and histories that are kept long enough. */
import type { Client } from '@temporalio/client';
import type { SearchAttributeType } from '@temporalio/common';
import type pino from 'pino';
import { searchAttributes } from '../flows/searchAttributes.ts';
import { deadlines, flowError } from './temporal_client.ts';

/** Temporal's numbers of the types that we use, and their names in its CLI. */
const types: Partial<Record<SearchAttributeType, { code: number; name: string }>> = {
  KEYWORD: { code: 2, name: 'Keyword' },
  KEYWORD_LIST: { code: 7, name: 'KeywordList' },
};
const retentionDays = 90;
const secondsPerDay = 86_400;

/**
 * Registers the search attributes that are missing. Answers the command to register them by hand when that is not
 * allowed, and undefined when all are there: without them, flows would stand still. Errors: `temporal_unreachable`.
 */
export async function registerSearchAttributes(client: Client, log: pino.Logger): Promise<string | undefined> {
  const { namespace } = client.options;
  const present = await soon(client, () => client.connection.operatorService.listSearchAttributes({ namespace }));
  const missing = Object.values(searchAttributes).filter((key) => !present.customAttributes?.[key.name]);
  if (missing.length === 0) return undefined;
  const wanted = Object.fromEntries(missing.map((key) => [key.name, types[key.type]!.code]));
  try {
    await client.withDeadline(Date.now() + deadlines.call, () =>
      client.connection.operatorService.addSearchAttributes({ namespace, searchAttributes: wanted }),
    );
    log.info({ registered: Object.keys(wanted) }, 'search attributes registered');
    return undefined;
  } catch (error) {
    log.warn({ reason: error instanceof Error ? error.message : String(error) }, 'search attributes are missing');
    const flags = missing.map((key) => `--name ${key.name} --type ${types[key.type]!.name}`).join(' ');
    return `temporal operator search-attribute create --namespace ${namespace} ${flags}`;
  }
}

/**
 * History is the audit trail, and the development server forgets it after a day: there retention is raised to 90 days.
 * A server elsewhere is somebody's to configure: it is only told what to do.
 */
export async function keepHistories(client: Client, address: string, log: pino.Logger): Promise<void> {
  const { namespace } = client.options;
  const { workflowService } = client.connection;
  const described = await soon(client, () => workflowService.describeNamespace({ namespace }));
  const seconds = Number(described.config?.workflowExecutionRetentionTtl?.seconds ?? 0);
  if (seconds >= retentionDays * secondsPerDay) return;
  const command = `temporal operator namespace update --namespace ${namespace} --retention ${retentionDays}d`;
  const advice = `closed flows are forgotten after ${seconds / 3600} hours; to keep them: ${command}`;
  if (!/^(127\.|localhost:|\[::1\]:)/.test(address)) return void log.warn(advice);
  const config = { workflowExecutionRetentionTtl: { seconds: retentionDays * secondsPerDay } };
  try {
    await client.withDeadline(Date.now() + deadlines.call, () =>
      workflowService.updateNamespace({ namespace, config } as never),
    );
    log.info({ days: retentionDays }, 'closed flows are kept');
  } catch {
    log.warn(advice);
  }
}

async function soon<T>(client: Client, call: () => Promise<T>): Promise<T> {
  try {
    return await client.withDeadline(Date.now() + deadlines.call, call);
  } catch (error) {
    throw flowError(error, 'a call of Temporal');
  }
}
