/** Whether the publication can be made, or carries all that is asked for as it is. */
import type { Finding } from '../../../model/source.ts';
import { byTableName, isCapturable } from './catalog.ts';
import { quoteName, quoteTable } from './connection.ts';
import type { ExaminedTable, Facts } from './preflight_facts.ts';
import { isPublished } from './publication.ts';
import type { Check } from './server_checks.ts';

/** Of a longer list people read the beginning only, and answers stay small. */
const listed = 100;

function listTables(tables: ExaminedTable[]): string {
  const names = tables.slice(0, listed).map(quoteTable).join(', ');
  return tables.length > listed ? `${names}, … (${tables.length} in all)` : names;
}

const blocking = (code: string, detail: string, remedy: string, table?: string): Finding => ({
  code,
  blocking: true,
  ...(table === undefined ? {} : { table }),
  detail,
  remedy,
});

/** The statement that makes the publication, for somebody who may. */
function createStatement({ options }: Facts, tables: ExaminedTable[]): string {
  return (
    `CREATE PUBLICATION ${quoteName(options.publication)} FOR TABLE ${listTables(tables)} ` +
    "WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false);"
  );
}

export const mayPublish: Check = (facts) => {
  const { server, publication } = facts;
  const tables = facts.tables.filter(isCapturable);
  if (publication || tables.length === 0) return [];
  const foreign = tables.filter((table) => !table.access.owned);
  if (server.may_create && foreign.length === 0) return [];
  const why = server.may_create
    ? `does not own ${listTables(foreign)}`
    : `may not create anything in the database ${server.database}`;
  const own = [
    server.may_create ? '' : `GRANT CREATE ON DATABASE ${quoteName(server.database)} TO ${quoteName(server.role)};`,
    ...new Set(foreign.map(({ access }) => `GRANT ${quoteName(access.owner)} TO ${quoteName(server.role)};`)),
  ].filter(Boolean);
  return [
    blocking(
      'publication_privilege',
      `the role ${server.role} cannot make the publication ${facts.options.publication}: it ${why}`,
      `As superuser or owner of the tables run ${createStatement(facts, tables)} Or let the role make it: ${own.join(' ')}`,
    ),
  ];
};

export const publicationCovers: Check = ({ publication, options, server, tables }) => {
  if (!publication) return [];
  const isThere = (table: ExaminedTable) => isPublished(publication, table, table.leaves !== undefined);
  const missing = tables.filter((table) => isCapturable(table) && !isThere(table));
  const mayAdd = publication.owned && !publication.all_tables && missing.every((table) => table.access.owned);
  if (missing.length === 0 || mayAdd) return [];
  const name = quoteName(options.publication);
  return [
    blocking(
      'publication_lacks_tables',
      `the publication ${options.publication} lacks ${listTables(missing)}, and the role ${server.role} may not add them`,
      `As owner of publication and tables run ALTER PUBLICATION ${name} ADD TABLE ${listTables(missing)};`,
    ),
  ];
};

export const publicationOperations: Check = ({ publication, options }) => {
  if (!publication) return [];
  const lacking = (['insert', 'update', 'delete', 'truncate'] as const).filter((operation) => !publication[operation]);
  if (lacking.length === 0) return [];
  return [
    blocking(
      'publication_operations',
      `the publication ${options.publication} leaves out ${lacking.join(', ')}`,
      `Run ALTER PUBLICATION ${quoteName(options.publication)} SET (publish = 'insert, update, delete, truncate');`,
    ),
  ];
};

export const publicationPartitions: Check = ({ publication, options }) =>
  publication?.via_root
    ? [
        blocking(
          'publication_via_root',
          `the publication ${options.publication} sends changes of partitions under the name of their root: truncating one partition would not be seen`,
          `Run ALTER PUBLICATION ${quoteName(options.publication)} SET (publish_via_partition_root = false);`,
        ),
      ]
    : [];

/** Of a partitioned table its partitions are looked at; one finding tells enough. */
export const publicationWhole: Check = (facts) =>
  facts.tables.flatMap((table) =>
    (table.leaves ?? [table]).flatMap((part) => leftOutOf(facts, table, part)).slice(0, 1),
  );

/** What the publication leaves out of a table, or of a part of one. */
function leftOutOf(
  { publication, options, config }: Facts,
  table: ExaminedTable,
  part: { schema: string; table: string },
): Finding[] {
  const name = `${table.schema}.${table.table}`;
  const published = publication?.tables.get(`${part.schema}.${part.table}`);
  if (!published) return [];
  const alter = `ALTER PUBLICATION ${quoteName(options.publication)}`;
  // A partition is sent whole when it is not named by itself.
  const again = part === table ? ` ${alter} ADD TABLE ${quoteTable(part)};` : '';
  const whole = `Run ${alter} DROP TABLE ${quoteTable(part)};${again}`;
  if (published.filter)
    return [blocking('publication_row_filter', 'the publication sends only some of the rows', whole, name)];
  const columns = published.columns;
  const excluded = byTableName(config.exclude_columns, table.schema, table.table) ?? [];
  const known = new Set([...table.columns.map((column) => column.name), ...excluded]);
  const generated = (columns ?? []).filter((column) => !known.has(column));
  if (generated.length > 0)
    return [
      blocking(
        'publication_generated',
        `the publication sends generated columns (${generated.join(', ')}), which are not part of a copy`,
        `Run ${alter} SET (publish_generated_columns = none); or name them in exclude_columns.`,
        name,
      ),
    ];
  const unsent = columns ? table.columns.filter((column) => !columns.includes(column.name)) : [];
  if (unsent.length === 0) return [];
  const detail = `the publication does not send ${unsent.map((column) => column.name).join(', ')}`;
  return [blocking('publication_column_list', detail, `${whole} Or name them in exclude_columns.`, name)];
}

export const publicationOfAll: Check = ({ publication, options }) =>
  publication?.all_tables
    ? [
        {
          code: 'publication_all_tables',
          blocking: false,
          detail: `the publication ${options.publication} is FOR ALL TABLES: UPDATE and DELETE fail on tables that have no key`,
          remedy: 'Leave options.publication out: Sluice then makes one with only the tables that are asked for.',
        },
      ]
    : [];
