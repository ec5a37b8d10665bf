/** A look at the source's catalog while tables change under it: what it shows must have been so at one moment. */
import type pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PostgresSource } from '../activities/capture/postgresql/source.ts';
import type { Connected, TableChange } from '../activities/capture/source.ts';
import type { TableSchema } from '../model/table.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { openClient } from './capture_harness.ts';
import { until } from './control_stack.ts';

let parts: StartedParts<'postgres'>;
let client: pg.Client;
let connected: Connected;
const source = new PostgresSource();

beforeAll(async () => {
  parts = await startParts(['postgres']);
  client = await openClient(parts.postgres.url);
  connected = {
    request: {
      id: 'looked',
      type: 'postgresql',
      connection_string: '${UNUSED}',
      config: { tables: ['t_*'], poll_interval: 1, mode: 'copy', exclude_columns: {}, options: {} },
    },
    connectionString: parts.postgres.url,
  };
});

afterAll(async () => {
  await client?.end().catch(() => {});
  await parts?.[Symbol.asyncDispose]();
});

async function captured(name: string): Promise<TableSchema> {
  await client.query(`CREATE TABLE ${name} (id int PRIMARY KEY, v text, w text)`);
  const tables = await source.readTables(connected, [
    { asset_id: `looked_${name}`, schema: 'public', table: name, start_position: '', generation: 1 },
  ]);
  await source.prepare(connected, tables, undefined, true);
  return tables[0]!;
}

/** What a look says to a table when `change` happens after it has read the table, and before it reads the publication. */
async function lookWhile(change: string, known: TableSchema): Promise<TableChange> {
  await client.query('BEGIN; LOCK TABLE pg_catalog.pg_publication_rel IN ACCESS EXCLUSIVE MODE');
  const looking = source.look(connected, [known]);
  const waiting = `SELECT FROM pg_locks WHERE NOT granted AND relation = 'pg_publication_rel'::regclass`;
  await until(
    async () => (await client.query(waiting)).rowCount,
    (count) => count === 1,
  );
  await client.query(`${change}; COMMIT`);
  return (await looking).compare(known);
}

it.each<[string, (table: string) => string, Partial<TableChange>]>([
  ['is dropped and made again', (t) => `DROP TABLE ${t}; CREATE TABLE ${t} (id int PRIMARY KEY)`, { do: 'resync' }],
  ['loses a column', (t) => `ALTER TABLE ${t} DROP COLUMN w`, { do: 'alter', what: ['column w was dropped'] }],
])('takes a table that %s for just that', async (how, change, expected) => {
  const table = `t_${how.replaceAll(' ', '_')}`;
  expect(await lookWhile(change(table), await captured(table))).toMatchObject(expected);
});

it('says of a table that was taken out of the publication that it was', async () => {
  const known = await captured('t_taken_out');
  const change = await lookWhile('ALTER PUBLICATION sluice_looked DROP TABLE t_taken_out', known);
  expect(change).toMatchObject({ do: 'stop', report: { kind: 'table_unusable' } });
});
