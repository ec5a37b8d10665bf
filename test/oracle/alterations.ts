/**
 * Random alterations of tables, with rows between them, by a session of their own: columns come, go, are renamed and get
 * other types and values; keys of rows, replica identities and whole tables are made anew.
 */
import type pg from 'pg';
import type { Random } from '../../workers/demo/random.ts';
import type { OracleTable } from './oracle_table.ts';
import { literal, nastyText } from './random_values.ts';

/** Columns that alterations may do anything to; the workload does not know them. */
const extras = ['extra_1', 'extra_2', 'extra "3"'];

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

interface Extra {
  name: string;
  type: string;
}

/** Alters a table in one transaction, or changes its extra columns only. Errors of statements are part of the game. */
export async function alterTable(client: pg.Client, table: OracleTable, random: Random): Promise<void> {
  await client.query("SET lock_timeout = '2s'; SET statement_timeout = '10s'; SET deadlock_timeout = '100ms'");
  if (random.chance(0.3)) await client.query('SET synchronous_commit = off');
  if (table.repartition && random.chance(0.6)) return attempt(client, table.repartition(random));
  // Some kinds take the whole table, and stand alone.
  if (random.chance(0.15)) return attempt(client, random.pick(wholesale(table)));
  await client.query('BEGIN');
  try {
    for (let step = random.between(1, 6); step > 0; step--) {
      await client.query('SAVEPOINT step');
      const statement = await nextStatement(client, table, random);
      const done = await client.query(statement).catch(() => undefined);
      await client.query(done ? 'RELEASE step' : 'ROLLBACK TO step');
    }
  } finally {
    await client.query(random.chance(0.9) ? 'COMMIT' : 'ROLLBACK').catch(() => {});
  }
}

async function attempt(client: pg.Client, statements: string[]): Promise<void> {
  await client.query('BEGIN');
  try {
    for (const statement of statements) await client.query(statement);
    await client.query('COMMIT');
  } catch {
    await client.query('ROLLBACK').catch(() => {});
  }
}

/** What makes another table of it: anew, swapped by name, or rewritten without a change of its definition. */
function wholesale(table: OracleTable): string[][] {
  const name = quoted(table.name);
  const away = quoted(`${table.name} away`);
  return [
    [`DROP TABLE ${name}`, ...table.create],
    [`ALTER TABLE ${name} RENAME TO ${away}`, ...renamedIndexes(table), ...table.create, `DROP TABLE ${away}`],
    [`ALTER TABLE ${name} REPLICA IDENTITY FULL`],
    ...(table.name === 'indexed' ? [] : [[`ALTER TABLE ${name} REPLICA IDENTITY DEFAULT`, ...identityAgain(table)]]),
  ];
}

/** Without a key and the whole old row, the source would refuse changes. */
function identityAgain(table: OracleTable): string[] {
  return table.key.length > 0 ? [] : [`ALTER TABLE ${quoted(table.name)} REPLICA IDENTITY FULL`];
}

/** Names of indexes are the schema's, and the new table wants them. */
function renamedIndexes(table: OracleTable): string[] {
  return table.name === 'indexed' ? ['ALTER INDEX indexed_code RENAME TO indexed_code_away'] : [];
}

async function nextStatement(client: pg.Client, table: OracleTable, random: Random): Promise<string> {
  if (random.chance(0.3)) return table.change(random);
  const { rows } = await client.query<Extra>(
    `SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
     WHERE attrelid = $1::regclass AND attname LIKE 'extra%' AND NOT attisdropped`,
    [quoted(table.name)],
  );
  const name = quoted(table.name);
  const there = rows.length > 0 ? random.pick(rows) : undefined;
  if (there && random.chance(0.5)) return changeValues(name, there, table, random);
  const missing = extras.filter((extra) => !rows.some((row) => row.name === extra));
  const kinds: (() => string)[] = [];
  if (missing.length > 0) kinds.push(() => `ALTER TABLE ${name} ADD COLUMN ${newColumn(random.pick(missing), random)}`);
  if (missing.length > 1) {
    kinds.push(
      () =>
        `ALTER TABLE ${name} ADD COLUMN ${newColumn(missing[0]!, random)}, ADD COLUMN ${newColumn(missing[1]!, random)}`,
    );
  }
  if (there) {
    kinds.push(() => `ALTER TABLE ${name} DROP COLUMN ${quoted(there.name)}`);
    kinds.push(() => otherType(name, there, random));
    kinds.push(
      () => `ALTER TABLE ${name} ALTER COLUMN ${quoted(there.name)} SET DEFAULT ${someValue(there.type, random)}`,
    );
    if (missing.length > 0)
      kinds.push(() => `ALTER TABLE ${name} RENAME COLUMN ${quoted(there.name)} TO ${quoted(random.pick(missing))}`);
  }
  return random.pick(kinds)();
}

function changeValues(name: string, { name: column, type }: Extra, table: OracleTable, random: Random): string {
  const key = table.key[0] === undefined ? 'ctid' : quoted(table.key[0]);
  const condition = random.pick([
    `${key} = (SELECT ${key} FROM ${name} LIMIT 1 OFFSET ${random.between(0, 5)})`,
    `${key} IN (SELECT ${key} FROM ${name} LIMIT ${random.between(1, 30)})`,
  ]);
  return `UPDATE ${name} SET ${quoted(column)} = ${random.chance(0.2) ? 'NULL' : someValue(type, random)} WHERE ${condition}`;
}

/** A definition: with or without a default, the same in each row or another one. */
function newColumn(column: string, random: Random): string {
  const type = random.pick([
    'integer',
    'bigint',
    'text',
    'character varying(50)',
    'numeric(8,2)',
    'timestamp with time zone',
    'integer[]',
    'jsonb',
  ]);
  const initial = random.pick([
    '',
    ` DEFAULT ${someValue(type, random)}`,
    ` DEFAULT ${someValue(type, random)}`,
    ...(type === 'text' ? [' DEFAULT clock_timestamp()::text'] : []),
    ...(type === 'integer[]' ? [` NOT NULL DEFAULT '{1,NULL,2}'`] : []),
  ]);
  return `${quoted(column)} ${type}${initial}`;
}

function someValue(type: string, random: Random): string {
  if (type === 'integer' || type === 'bigint') return String(random.between(-99, 99));
  if (type.startsWith('numeric')) return (random.between(-9999, 9999) / 100).toFixed(2);
  if (type.startsWith('timestamp'))
    return `timestamptz '2000-01-01 UTC' + ${random.between(-1e9, 1e9)} * interval '1 s'`;
  if (type === 'integer[]') return `'{${random.between(0, 9)},NULL}'`;
  if (type === 'jsonb') return `jsonb_build_object('k', ${random.between(0, 9)})`;
  return literal(nastyText(random));
}

/** Wider or narrower, with a rewrite or without; some do not fit the values, and fail. */
function otherType(name: string, { name: column, type }: Extra, random: Random): string {
  const alter = `ALTER TABLE ${name} ALTER COLUMN ${quoted(column)} TYPE`;
  const types: Record<string, string[]> = {
    integer: ['bigint', 'text', `integer USING ${quoted(column)} + 1`],
    bigint: ['integer', 'text'],
    text: ['character varying(50)', `text USING upper(${quoted(column)})`, 'character varying'],
    'character varying(50)': ['text', 'character varying(80)'],
    'numeric(8,2)': ['numeric(12,2)', 'numeric(20,2)', 'numeric(12,4)', 'numeric'],
  };
  return `${alter} ${random.pick(types[type] ?? ['text'])}`;
}
