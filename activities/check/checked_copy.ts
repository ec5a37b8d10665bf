/** Copies as checks of whole copies see them. */

import { isMultiset } from '../../model/table.ts';
import { loadKnownSchemas } from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { checkedColumns } from './copy_columns.ts';
import type { CheckedCopy } from './copy_conditions.ts';

/** The copy of an asset; undefined when there is none. Errors: `sink_refused` before anything was ever copied. */
export async function checkedCopy(clickhouse: ClickHouse, asset: string): Promise<CheckedCopy | undefined> {
  // Tables of Sluice itself are no copies.
  if (asset.startsWith('_')) return undefined;
  const table = (await loadKnownSchemas(clickhouse, asset)).get(asset);
  const columns = await checkedColumns(clickhouse, asset, table);
  if (columns.length === 0) return undefined;
  // Rows of a table without a key are counted, and only the view shows them one by one.
  if (table && isMultiset(table))
    return { clickhouse, asset, table, columns, rows: clickhouse.name(`${asset}_current`), newest: '' };
  const rows = `${clickhouse.name(asset)} FINAL`;
  return { clickhouse, asset, table, columns, rows, newest: 'ORDER BY _version DESC' };
}
