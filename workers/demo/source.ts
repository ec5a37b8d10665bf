/** The demo's source: connects PostgreSQL as `postgres_main`, and starts it where its data are the demo's own. */
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../../model/errors.ts';
import type { SourceState, StackApi } from '../embedded/stack_api.ts';

export const demoSource = 'postgres_main';
const demoTables = ['accounts', 'transactions', 'currencies'];

/**
 * Connects the source, whose connection string stays in the environment. The embedded bank is started too; a database
 * that a person named (`own`) is only connected, with every table of `public` that has a key. Paused stays paused.
 * Errors: what the API says.
 */
export async function connectDemoSource(api: StackApi, own: boolean): Promise<void> {
  const body = {
    id: demoSource,
    type: 'postgresql',
    connection_string: '${DATABASE_URL}',
    config: own ? {} : { tables: demoTables },
  };
  await soon(() => api.ask('POST', '/api/v1/sources/connect', body));
  if (own) return;
  const source = await soon(() => api.ask<SourceState>('GET', `/api/v1/sources/${demoSource}`));
  if (!['connected', 'stopped', 'failed'].includes(source.status)) return;
  await soon(() => api.ask('POST', `/api/v1/sources/${demoSource}/start`));
}

/** A worker that has just begun may not answer at once. */
async function soon<T>(call: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const passing = !(error instanceof SluiceError) || / answered 50[0-4]/.test(error.message);
      if (!passing || Date.now() > deadline) throw error;
      await sleep(500);
    }
  }
}
