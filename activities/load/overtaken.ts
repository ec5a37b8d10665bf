/**
 * Rejects that are of the past: a later change of their row is in the copy. What the copy holds tells, when somebody asks, so
 * that the stream need not look for rejects with every change.
 */
import { SluiceError } from '../../model/errors.ts';
import { type Column, copyName, isMultiset, keyColumns, type TableSchema } from '../../model/table.ts';
import { RowEncoder } from '../capture/postgresql/encode.ts';
import { copyKeyText, keyKind, keyTextOfOutput, readKeyText } from '../check/verify_keys.ts';
import { keyId } from '../check/verify_sides.ts';
import { loadKnownSchemas } from './batches.ts';
import { Block } from './block.ts';
import { type ClickHouse, lengthOf, quoteName } from './clickhouse.ts';
import { keyLists } from './key_lists.ts';
import type { StoredReject } from './rejects.ts';
import { ownColumns } from './tables.ts';

type Held = Pick<StoredReject, 'key' | 'version'>;

/** Of rejects of any assets, those that `overtaken` finds. */
export async function overtakenOfAll<One extends Held & { asset: string }>(
  clickhouse: ClickHouse,
  rejects: readonly One[],
): Promise<Set<One>> {
  const found = new Set<One>();
  for (const asset of new Set(rejects.map((one) => one.asset))) {
    const some = rejects.filter((one) => one.asset === asset);
    const table = (await loadKnownSchemas(clickhouse, asset)).get(asset);
    if (table) for (const one of await overtaken(clickhouse, table, some)) found.add(one);
  }
  return found;
}

/**
 * Of rejects of one table, those that are of the past: its copy has a newer version of the row, a tombstone too, or was made
 * anew since. None where the copy cannot be asked. Throws what may be tried again.
 */
export async function overtaken<One extends Held>(
  clickhouse: ClickHouse,
  table: TableSchema,
  rejects: readonly One[],
): Promise<Set<One>> {
  const oldest = BigInt(table.copy?.from ?? 0);
  const newest = isMultiset(table) ? new Map<string, bigint>() : await newestVersions(clickhouse, table, rejects);
  return new Set(
    rejects.filter(({ key, version }) => {
      const held = BigInt(version);
      return held < oldest || (newest.get(rejectKeyId(table, key)) ?? 0n) > held;
    }),
  );
}

/** The highest version that the copy has of each row, by `keyId`; of tombstones too. */
async function newestVersions(
  clickhouse: ClickHouse,
  table: TableSchema,
  rejects: readonly Held[],
): Promise<Map<string, bigint>> {
  const columns = keyColumns(table);
  const names = columns.map(({ name }) => `_r.${quoteName(name)}`);
  const types = columns.map((column) => column.clickhouse);
  const found = new Map<string, bigint>();
  try {
    const texts = columns.map((column, i) => copyKeyText(column, names[i]!));
    for (const list of keyLists(keysOf(table, rejects), types)) {
      const sql = `SELECT [${texts.join(', ')}] AS key, toString(max(_r._version)) AS newest
        FROM ${clickhouse.name(copyName(table))} AS _r WHERE (${names.join(', ')}) IN (${list}) GROUP BY ${names.join(', ')}`;
      const rows = await clickhouse.rows<{ key: string[]; newest: string }>(sql, { settings: lengthOf(sql) });
      for (const { key, newest } of rows)
        found.set(keyId(columns.map((column, i) => readKeyText(column, key[i]!))), BigInt(newest));
    }
  } catch (error) {
    if (!(error instanceof SluiceError) || error.transient) throw error;
  }
  return found;
}

/** Writes a tombstone over each row whose newest version in the copy is the one that was held back. */
export async function takeBack(clickhouse: ClickHouse, table: TableSchema, rejects: readonly Held[]): Promise<void> {
  const names = keyColumns(table).map(({ name }) => quoteName(name));
  const types = [...keyColumns(table).map((column) => column.clickhouse), 'UInt128'];
  const copy = clickhouse.name(copyName(table));
  const rows = rejects.flatMap((one) => [...keysOf(table, [one])].map((key) => [...key, one.version]));
  for (const list of keyLists(rows, types)) {
    // Under FINAL a condition on the version must be a WHERE: PREWHERE would show superseded rows.
    const sql =
      `INSERT INTO ${copy} (${[...names, ...ownColumns].join(', ')}) ` +
      `SELECT ${names.join(', ')}, toUInt128(_version + 1), 1, _committed_at FROM ${copy} FINAL ` +
      `WHERE (${[...names, '_version'].join(', ')}) IN (${list}) ` +
      'SETTINGS optimize_move_to_prewhere = 0, optimize_move_to_prewhere_if_final = 0';
    await clickhouse.command(sql, { settings: lengthOf(sql) });
  }
}

/** Keys as the copy would hold them, as fields of TSV. One that it cannot hold is in no copy. */
function* keysOf(table: TableSchema, rejects: readonly Held[]): Generator<string[]> {
  const encoder = new RowEncoder(table);
  const block = new Block(4096);
  for (const { key } of rejects) {
    const texts = keyTexts(table, key);
    const fields = keyColumns(table).map((column, i) => keyField(encoder, block, column, texts[i] ?? null));
    if (fields.every((field) => field !== undefined)) yield fields;
  }
}

function keyField(encoder: RowEncoder, block: Block, column: Column, text: string | null): string | undefined {
  const kind = keyKind(column);
  if (text === null || (kind === 'integer' && !/^-?\d+$/.test(text))) return undefined;
  // As text, since not all bytes are UTF-8.
  if (kind === 'bytes') return text.replace(/^\\x/, '').replaceAll(/../g, '\\x$&');
  block.length = 0;
  if (!encoder.text(block, encoder.table.columns.indexOf(column), text)) return undefined;
  return block.bytes.toString('utf8', 0, block.length - 1);
}

/** The `keyId` of a reject's row; its key is a JSON object of the texts that the source printed. */
export function rejectKeyId(table: TableSchema, json: string): string {
  const texts = keyTexts(table, json);
  return keyId(keyColumns(table).map((column, i) => keyTextOfOutput(column, texts[i] ?? '')));
}

/** The texts of the key's columns, which may have had other names then; null for one that is not there. */
function keyTexts(table: TableSchema, json: string): (string | null)[] {
  const texts = JSON.parse(json) as Record<string, string | null>;
  return keyColumns(table).map(({ attnum, name }) => {
    const former = table.former?.filter((column) => column.attnum === attnum).map((column) => column.name) ?? [];
    const known = [name, ...former].find((one) => Object.hasOwn(texts, one));
    return known === undefined ? null : texts[known]!;
  });
}
