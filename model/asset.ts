/** Asset ids: exact concatenations, case kept, nothing replaced. */

/** What ids of sources and deployments must look like; they share one namespace. */
export const idPattern = /^[a-z][a-z0-9_]{0,39}$/;

/** The asset of a source table, and the name of its copy's table in ClickHouse. */
export function tableAssetId(source: string, schema: string, table: string): string {
  return schema === 'public' ? `${source}_${table}` : `${source}_${schema}_${table}`;
}

/** The asset of the copy in ClickHouse. */
export function copyAssetId(tableAsset: string): string {
  return `clickhouse_${tableAsset}`;
}

/** The asset of the table, by its own id or that of its copy. */
export function tableAssetOf(asset: string): string {
  return asset.replace(/^clickhouse_/, '');
}
