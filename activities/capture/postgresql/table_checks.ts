/** What must be so for each table, and what people should know about the ones that can be captured. */

import { isGlob } from '../../../model/glob.ts';
import type { Finding } from '../../../model/source.ts';
import { isMultiset, keyColumns, type TableSchema, tableName } from '../../../model/table.ts';
import { multisetColumns } from '../../load/multiset.ts';
import {
  byTableName,
  isCapturable,
  isOrdinary,
  leafFault,
  matchPatterns,
  type Relation,
  wholesAmong,
} from './catalog.ts';
import { quoteName, quoteTable } from './connection.ts';
import type { ExaminedTable, Facts } from './preflight_facts.ts';
import type { Check } from './server_checks.ts';

type TableCheck = (table: ExaminedTable, facts: Facts) => Omit<Finding, 'table'> | undefined;

/** A check of one table as a check of all. */
function each(check: TableCheck): Check {
  return (facts) =>
    facts.tables.flatMap((table) => {
      const finding = check(table, facts);
      return finding ? [{ ...finding, table: `${table.schema}.${table.table}` }] : [];
    });
}

const blocking = (code: string, detail: string, remedy: string) => ({ code, blocking: true, detail, remedy });
const remark = (code: string, detail: string, remedy: string) => ({ code, blocking: false, detail, remedy });

export const tablesExist: Check = ({ unmatched, relations, server }) =>
  unmatched.map((name) => {
    const near = isGlob(name) ? undefined : nearest(name, relations);
    return {
      code: 'table_missing',
      blocking: true,
      table: name,
      detail: isGlob(name)
        ? `no table matches ${name}`
        : `there is no table ${name} in the database ${server.database}`,
      remedy: near
        ? `Did you mean ${near}?`
        : 'Name a table of this database: in schemas other than public as schema.table, upper and lower case as in the catalog.',
    };
  });

/** The name that a mistyped one most likely means: same letters, same name elsewhere, or at most two typing errors. */
function nearest(name: string, relations: Relation[]): string | undefined {
  const wanted = name.toLowerCase();
  const bare = wanted.slice(wanted.lastIndexOf('.') + 1);
  let best: { name: string; distance: number } | undefined;
  for (const relation of relations.slice(0, 5000)) {
    const full = tableName(relation);
    const distance =
      relation.table.toLowerCase() === bare
        ? 0.5
        : editDistance(wanted.slice(0, 128), full.toLowerCase().slice(0, 128));
    if (distance <= 2 && (!best || distance < best.distance)) best = { name: full, distance };
  }
  return best?.name;
}

/** Levenshtein's distance. */
function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

export const someTable: Check = ({ implicit, tables, server }) =>
  implicit && tables.length === 0
    ? [
        blocking(
          'no_tables',
          `the schema public of ${server.database} has no table with a usable key`,
          'Name the tables to capture, e.g. tables: [sales.orders], or check the database in the connection string.',
        ),
      ]
    : [];

const otherKinds: Record<string, [what: string, remedy: string]> = {
  v: ['a view: it has no rows of its own', 'Name the tables that it reads.'],
  m: ['a materialized view: its changes are not in the log', 'Name the tables that it reads.'],
  f: ['a foreign table: its changes are in the log of another server', 'Connect that server as a source.'],
};

export const ordinaryTable = each(({ kind, persistence, schema, table }) => {
  const other = otherKinds[kind];
  if (other) return blocking('not_a_table', `${table} is ${other[0]}`, other[1]);
  if (persistence === 'u')
    return blocking(
      'unlogged',
      `${table} is unlogged: its changes are not in the log`,
      `Run ALTER TABLE ${quoteTable({ schema, table })} SET LOGGED;`,
    );
  return undefined;
});

/** Rows of a partition must not be copied with the whole table and by themselves: the log has each change once. */
export const capturedOnce: Check = ({ tables, relations, beside }) => {
  const asked = new Set(relations.filter(({ oid }) => tables.some((table) => table.oid === oid)));
  const there = beside.length > 0 ? matchPatterns(relations, beside).found : [];
  const all = new Set([...asked, ...there]);
  const wholeOf = wholesAmong(relations, all);
  return [...all].flatMap((relation) => {
    const whole = wholeOf(relation);
    if (!whole || !(asked.has(relation) || asked.has(whole))) return [];
    const [part, root] = [tableName(relation), tableName(whole)];
    const detail = `${part} is a partition of ${root}, which is captured too`;
    const remedy = `Take ${part} out: its rows are in the copy of ${root}.`;
    return [{ ...blocking('partition_twice', detail, remedy), table: `${relation.schema}.${relation.table}` }];
  });
};

/** What to do for a table that lacks a usable key, the cheapest way first. */
function keyRemedy(table: ExaminedTable): string {
  const name = quoteTable(table);
  const { candidate } = table.access;
  return candidate === null
    ? `Run ALTER TABLE ${name} ADD PRIMARY KEY (…); or make a unique index over NOT NULL columns and run ALTER TABLE ${name} REPLICA IDENTITY USING INDEX …;`
    : `Run ALTER TABLE ${name} REPLICA IDENTITY USING INDEX ${quoteName(candidate)};`;
}

/** The same, for a table that can also be copied as it is once the log has its whole old rows. */
function identityRemedy(table: ExaminedTable): string {
  if (table.access.candidate !== null) return keyRemedy(table);
  return `Run ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY FULL; and its rows are copied and counted. Or, which costs the log less: ${keyRemedy(table)}`;
}

/** What putting such a table into a publication, by whatever means, would do to those who write to it. */
const wouldFail = 'in a publication, every UPDATE and DELETE of it would fail';

const lacksKey: TableCheck = (table, { implicit }) => {
  if (!isOrdinary(table) || isCapturable(table)) return undefined;
  const name = quoteTable(table);
  const leftOut = implicit ? ' (it is left out)' : '';
  const finding = (code: string, detail: string, remedy: string) => ({
    code,
    blocking: !implicit,
    detail: detail + leftOut,
    remedy,
  });
  if (table.replicaIdentity === 'nothing')
    return finding(
      'identity_nothing',
      `${table.table} has REPLICA IDENTITY NOTHING: UPDATE and DELETE do not say which row they change, and ${wouldFail}`,
      `Run ALTER TABLE ${name} REPLICA IDENTITY DEFAULT;`,
    );
  if (table.unsentKeyColumns.length > 0)
    return finding(
      'key_generated',
      `the key of ${table.table} holds generated columns (${table.unsentKeyColumns.join(', ')}), which the stream does not carry; ${wouldFail}`,
      keyRemedy(table),
    );
  if (table.keyDeferrable)
    return finding(
      'key_deferrable',
      `the primary key of ${table.table} is DEFERRABLE: rows may share a key inside a transaction, and PostgreSQL does not take it as replica identity: ${wouldFail}`,
      table.access.candidate === null
        ? `Drop the constraint and add it again without DEFERRABLE, or make a second unique index and run ALTER TABLE ${name} REPLICA IDENTITY USING INDEX …;`
        : keyRemedy(table),
    );
  const isWhole = table.replicaIdentity === 'full';
  const fault = !isMultiset(table) || isWhole ? leafFault(table) : undefined;
  if (fault) return finding(fault.code, `${table.table} cannot be captured: ${fault.reason}`, fault.remedy);
  if (table.replicaIdentity === 'index')
    return finding(
      'identity_index_gone',
      `the index that was the replica identity of ${table.table} is gone: ${wouldFail}`,
      table.access.candidate === null
        ? keyRemedy(table)
        : `${keyRemedy(table)} Or REPLICA IDENTITY DEFAULT, if that is the primary key.`,
    );
  if (isWhole)
    return finding(
      'no_columns',
      `${table.table} has no columns that could be copied`,
      'Take it out; or name fewer columns in exclude_columns.',
    );
  const detail = `${table.table} has no primary key: its rows cannot be told apart, and ${wouldFail}`;
  return finding('no_key', detail, identityRemedy(table));
};

/** What people should know who read the copy. */
export const countedRows = each((table) =>
  isMultiset(table) && isCapturable(table)
    ? remark(
        'counted_rows',
        `${table.table} has no primary key: its copy holds every change of a row, and rows that are alike are counted`,
        `Read ${table.asset_id}_current, which shows the rows as the table has them. A key would make copy and log smaller: ${keyRemedy(table)}`,
      )
    : undefined,
);

export const usableKey: Check = (facts) => each(lacksKey)({ ...facts, tables: [...facts.tables, ...facts.leftOut] });

export const readable = each((table, { server }) => {
  const role = quoteName(server.role);
  const { schema_usage, may_select } = table.access;
  if (schema_usage && may_select) return undefined;
  const grants = [
    schema_usage ? '' : `GRANT USAGE ON SCHEMA ${quoteName(table.schema)} TO ${role};`,
    may_select ? '' : `GRANT SELECT ON ${quoteTable(table)} TO ${role};`,
  ].filter(Boolean);
  return blocking(
    'select_privilege',
    `the role ${server.role} may not read the ${may_select ? `schema ${table.schema}` : `table ${table.table}`}`,
    `Run ${grants.join(' ')}`,
  );
});

export const rowSecurity = each((table, { server }) =>
  table.access.row_security && isOrdinary(table)
    ? blocking(
        'row_security',
        `row security hides rows of ${table.table} from the role ${server.role}: a copy would lack them`,
        `Run ALTER ROLE ${quoteName(server.role)} BYPASSRLS; as superuser, or connect as the table's owner (without FORCE ROW LEVEL SECURITY).`,
      )
    : undefined,
);

export const inheritance = each((table) =>
  table.access.children
    ? remark(
        'inheritance',
        `other tables inherit from ${table.table}: their rows show when it is selected from, but are not in its copy`,
        'Capture the inheriting tables too, and read their copies beside it.',
      )
    : undefined,
);

/** Columns of every copy, and names that ClickHouse keeps for itself in tables of this engine. */
const ownNames = ['_version', '_deleted', '_committed_at', '_row_exists', '_block_number', '_block_offset'];

/** Names that no column of the table may have. */
export function reservedNames(table: Pick<TableSchema, 'columns'>): string[] {
  return isMultiset(table) ? [...ownNames, ...multisetColumns] : ownNames;
}

export const columnNames = each((table, { config }) => {
  const reserved = reservedNames(table);
  const taken = config.mode === 'copy' ? reserved : [...reserved, '_op'];
  const clash = table.columns.filter((column) => taken.includes(column.name)).map((column) => column.name);
  if (clash.length === 0) return undefined;
  return blocking(
    'column_name',
    `${table.table} has columns whose names the copy needs itself: ${clash.join(', ')}`,
    clash.some((name) => table.columns.some((column) => column.key && column.name === name))
      ? `Rename them, e.g. ALTER TABLE ${quoteTable(table)} RENAME COLUMN ${quoteName(clash[0]!)} TO …;`
      : 'Name them in exclude_columns, or rename them.',
  );
});

export const excludedColumns: Check = ({ config, tables, relations }) =>
  Object.entries(config.exclude_columns ?? {}).flatMap(([name, columns]) => {
    if (!relations.some((relation) => byTableName({ [name]: true }, relation.schema, relation.table))) {
      const near = nearest(name, relations);
      const remedy = near ? `Did you mean ${near}?` : 'Write the table as in tables.';
      return [
        { ...blocking('exclude_unknown', `exclude_columns names ${name}, which is no table`, remedy), table: name },
      ];
    }
    const table = tables.find(({ schema, table }) => byTableName({ [name]: true }, schema, table));
    return table ? checkExcluded(table, columns) : [];
  });

function checkExcluded(table: ExaminedTable, columns: string[]): Finding[] {
  const at = `${table.schema}.${table.table}`;
  const keys = keyColumns(table).map((column) => column.name);
  const inKey = columns.filter((column) => keys.includes(column));
  const unknown = columns.filter((column) => !table.columnNames.includes(column));
  const findings: Finding[] = [];
  if (inKey.length > 0)
    findings.push({
      ...blocking(
        'exclude_key',
        `${inKey.join(', ')} cannot be left out: the key tells the copy's rows apart`,
        'Take it out of exclude_columns.',
      ),
      table: at,
    });
  if (unknown.length > 0)
    findings.push({
      ...blocking(
        'exclude_unknown',
        `exclude_columns names ${unknown.join(', ')}, but ${table.table} has no such column`,
        `Its columns are ${table.columnNames.slice(0, 100).join(', ')}.`,
      ),
      table: at,
    });
  return findings;
}

export const assetIdsKnown: Check = ({ options, relations }) =>
  Object.keys(options.assetIds)
    .filter((name) => !relations.some(({ schema, table }) => byTableName({ [name]: true }, schema, table)))
    .map((name) => ({
      ...blocking(
        'asset_id_unknown',
        `options.asset_ids names ${name}, which is no table`,
        'Write the table as in tables, or take it out.',
      ),
      table: name,
    }));

/** The names in ClickHouse that a table's copy takes. */
function takenNames(table: ExaminedTable, mode: string): string[] {
  const names = [table.asset_id, `${table.asset_id}_current`];
  return mode === 'copy' ? names : [...names, `${table.asset_id}_log`];
}

export const assetIdsUnique: Check = ({ tables, config }) => {
  const owners = new Map<string, ExaminedTable>();
  const findings: Finding[] = [];
  for (const table of tables) {
    for (const name of takenNames(table, config.mode)) {
      const other = owners.get(name);
      owners.set(name, other ?? table);
      if (!other || other === table) continue;
      findings.push({
        ...blocking(
          'asset_id_taken',
          `${tableName(table)} and ${tableName(other)} would both become ${name} in ClickHouse`,
          `Give one of them another id: options: { asset_ids: { ${JSON.stringify(tableName(table))}: ${table.asset_id}_2 } }.`,
        ),
        table: `${table.schema}.${table.table}`,
      });
      break;
    }
  }
  return findings;
};

/** ClickHouse names files after tables: 255 bytes less its own additions, a database name and our suffixes. */
const longestId = 170;

export const assetIdLength = each((table) => {
  const fileName = table.asset_id.replace(/[^A-Za-z0-9_]/gu, (letter) => '%XX'.repeat(Buffer.byteLength(letter)));
  if (fileName.length <= longestId) return undefined;
  return blocking(
    'asset_id_long',
    `the asset id ${table.asset_id} takes ${fileName.length} characters as a file name in ClickHouse, of ${longestId}`,
    `Give it a shorter one: options: { asset_ids: { ${JSON.stringify(tableName(table))}: … } }.`,
  );
});

export const keyType = each((table) => {
  const odd = keyColumns(table).filter((column) => table.access.incomparable.includes(column.name));
  if (odd.length === 0) return undefined;
  const list = odd.map((column) => `${column.name} ${column.type}`).join(', ');
  return blocking(
    'key_type',
    `the key of ${table.table} holds a type of an extension (${list}): it cannot be cut into chunks by it`,
    table.access.candidate === null
      ? `Make a unique index over NOT NULL columns of other types and run ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY USING INDEX …;`
      : keyRemedy(table),
  );
});

export const floatKey = each((table) => {
  const floats = keyColumns(table).filter((column) => column.clickhouse.startsWith('Float'));
  if (floats.length === 0) return undefined;
  return remark(
    'float_key',
    `the key of ${table.table} holds floating point numbers (${floats.map((column) => column.name).join(', ')}): 0 and -0, or two NaN, may be one row in the copy`,
    'Use a key of another type if such values occur.',
  );
});

const narrow: Record<string, string> = {
  numeric: 'NaN and infinities',
  date: 'dates outside of 1900 to 2299, infinity',
  timestamp: 'times outside of the years 1 to 9999, infinity',
  timestamptz: 'times outside of the years 1 to 9999, infinity',
  array: 'arrays of several dimensions or other bounds than 1',
};

export const valueRanges = each((table) => {
  const kinds = new Map<string, string[]>();
  for (const column of table.columns) {
    const what = narrow[column.encoding];
    if (what) kinds.set(what, [...(kinds.get(what) ?? []), column.name]);
  }
  if (kinds.size === 0) return undefined;
  const list = [...kinds].map(([what, columns]) => `${what} (${columns.join(', ')})`).join('; ');
  return remark(
    'value_ranges',
    `ClickHouse's types cannot hold: ${list}. Rows with such values go to _rejects, the others to the copy`,
    'Nothing needs to be done unless such values occur: then see sluice rejects list.',
  );
});
