/** Looks whether a source can be captured as asked, and says for each obstacle what to run. Changes nothing. */
import type pg from 'pg';
import type { CaptureConfig, Finding } from '../../../model/source.ts';
import type { TableSchema } from '../../../model/table.ts';
import { isCapturable, schemaOf } from './catalog.ts';
import { readFacts } from './preflight_facts.ts';
import * as publication from './publication_checks.ts';
import * as server from './server_checks.ts';
import * as tables from './table_checks.ts';
import { atOneMoment } from './visibility.ts';

/** All checks, in the order in which people should read their findings. */
const checks: server.Check[] = [
  server.serverVersion,
  server.keepsThroughFailover,
  server.notStandby,
  server.walLevel,
  server.readWrite,
  server.blockSize,
  server.encoding,
  server.mayReplicate,
  server.slotUsable,
  server.freeSlot,
  server.freeWalsender,
  tables.tablesExist,
  tables.someTable,
  tables.ordinaryTable,
  tables.capturedOnce,
  tables.usableKey,
  tables.keyType,
  tables.readable,
  tables.rowSecurity,
  tables.columnNames,
  tables.excludedColumns,
  tables.assetIdsKnown,
  tables.assetIdsUnique,
  tables.assetIdLength,
  publication.mayPublish,
  publication.publicationCovers,
  publication.publicationOperations,
  publication.publicationPartitions,
  publication.publicationWhole,
  publication.publicationOfAll,
  server.keptLog,
  server.idleSlot,
  server.durable,
  tables.inheritance,
  tables.countedRows,
  tables.floatKey,
  tables.valueRanges,
];

/** More findings than this nobody reads, and answers of activities must stay small. */
const findingsLimit = 200;

/**
 * Findings, the blocking ones first, and the schemas of all tables that `config` means and that nothing blocks. Errors:
 * `configuration` for options that no PostgreSQL source has, else those of any query. `beside`: tables that are captured already.
 */
export async function preflight(
  client: pg.ClientBase,
  source: string,
  config: CaptureConfig,
  beside: string[] = [],
): Promise<{ findings: Finding[]; tables: TableSchema[] }> {
  const facts = await atOneMoment(client, () => readFacts(client, source, config, beside));
  const found = checks.flatMap((check) => check(facts));
  const blocked = new Set(found.filter((finding) => finding.blocking).map((finding) => finding.table));
  const usable = facts.tables.filter((table) => isCapturable(table) && !blocked.has(`${table.schema}.${table.table}`));
  return { findings: limit(found), tables: usable.map(schemaOf) };
}

function limit(found: Finding[]): Finding[] {
  const sorted = [...found.filter((finding) => finding.blocking), ...found.filter((finding) => !finding.blocking)];
  if (sorted.length <= findingsLimit) return sorted;
  const rest = sorted.slice(findingsLimit);
  return [
    ...sorted.slice(0, findingsLimit),
    {
      code: 'more_findings',
      blocking: rest.some((finding) => finding.blocking),
      detail: `${rest.length} findings more`,
      remedy: 'Settle the ones shown, then look again.',
    },
  ];
}
