/**
 * What the catalog says to captured tables, and what the publication leaves out of them. Catalogs are read by several
 * statements: what they say together holds only when the tables were the same before and after.
 */
import type pg from 'pg';
import { SluiceError } from '../../../model/errors.ts';
import { type TableSchema, tableName } from '../../../model/table.ts';
import type { Look, NamedTable, TableChange } from '../source.ts';
import { isCapturable, type ReadOptions, seeTables } from './catalog.ts';
import { durablePosition } from './durable.ts';
import { leftOutOf, type Publication, placeIn, readPublication } from './publication.ts';
import { compareTable } from './table_change.ts';
import { atOneMoment } from './visibility.ts';

/** Times that tables may change while their publication is read. */
const mostReadings = 5;

export interface LookOptions extends ReadOptions {
  publication: string;
  /** See CompareOptions. */
  ignoreNew: boolean;
}

type See = Awaited<ReturnType<typeof seeTables>>;

/** Looks at these tables of a source. Errors: as those of connections; `source_unreachable` when they do not come to rest. */
export async function look(
  client: pg.Client,
  source: string,
  tables: NamedTable[],
  options: LookOptions,
): Promise<Look> {
  const { see, publication, unsent } = await readSettled(client, source, tables, options);
  const named = new Map(tables.map((table) => [table.asset_id, see(table).named]));
  const wholes = new Map(
    [...named.values()].flatMap((table) => table?.leaves?.map(({ oid }) => [oid, tableName(table)] as const) ?? []),
  );
  const position = await durablePosition(client);
  return {
    position,
    usable: (asset) => {
      const table = named.get(asset);
      return table !== undefined && isCapturable(table);
    },
    compare: (known) => {
      const whole = wholes.get(known.oid);
      if (whole !== undefined) return partOf(known, source, whole);
      const reason = unsent(known);
      if (reason !== undefined) return notSent(known, source, reason);
      const seen = see(known);
      if (seen.named?.oid === known.oid && publication && wasOut(known, publication))
        return { do: 'resync', reason: 'it was out of the publication for a while' };
      return compareTable(known, seen, { ...options, source });
    },
  };
}

/** Reads tables, then the publication, until the tables of which something is said to be left out were so twice. */
async function readSettled(client: pg.Client, source: string, tables: NamedTable[], options: LookOptions) {
  let doubts = '';
  for (let reading = 0; reading < mostReadings; reading++) {
    const see = await atOneMoment(client, () => seeTables(client, source, tables, options));
    const publication = await readPublication(client, options.publication);
    const unsent = unsentOf(see, publication, options);
    const doubted = tables.filter((table) => unsent(table) !== undefined);
    const before = doubts;
    doubts = JSON.stringify(doubted.map((table) => [see(table), unsent(table)]));
    if (doubted.length === 0 || doubts === before) return { see, publication, unsent };
  }
  throw new SluiceError(
    'source_unreachable',
    'the definitions of its tables change all the time',
    'It is tried again.',
    { source },
  );
}

/** Answers of a table, if it is still the one that is known, what the publication leaves out of what is copied of it. */
function unsentOf(see: See, publication: Publication | undefined, options: LookOptions) {
  return (known: NamedTable | TableSchema): string | undefined => {
    const { named } = see(known);
    if (!named || named.oid !== known.oid) return undefined;
    const isCopied = ({ attnum }: { attnum: number }) =>
      !options.ignoreNew || known.columns!.some((column) => column.attnum === attnum);
    return leftOutOf(publication, options.publication, { ...named, columns: named.columns.filter(isCopied) });
  };
}

/** True when the table's place in the publication is another one than that since which the log sends its changes. */
function wasOut({ oid, published }: TableSchema, publication: Publication): boolean {
  return published !== undefined && published !== '' && published !== placeIn(publication, oid);
}

/** A table that was attached as a partition to one that is captured: the log has its changes once. */
function partOf(table: TableSchema, source: string, whole: string): TableChange {
  const name = tableName(table);
  const reason = `the table ${name} is a partition of ${whole} now, whose copy has its rows`;
  const remedy = `Take it out: sluice sources remove-tables ${source} ${name}`;
  return { do: 'stop', report: { kind: 'table_unusable', reason, remedy } };
}

function notSent(table: TableSchema, source: string, reason: string): TableChange {
  const name = tableName(table);
  const remedy = `Mend the publication, then: sluice sources resync ${source} ${name}`;
  return { do: 'stop', report: { kind: 'table_unusable', reason: `the table ${name}: ${reason}`, remedy } };
}
