/** Writing to Sluice's own tables from the API and the CLI: what people did, and the index of lineage. */
import { ClickHouse } from '../../activities/load/clickhouse.ts';
import type { Control } from './control.ts';

/** Runs `use` with a connection that may write, and closes it whatever happens. */
export async function ownTables<Answer>(
  { settings }: Pick<Control, 'settings'>,
  use: (clickhouse: ClickHouse) => Promise<Answer>,
): Promise<Answer> {
  const { clickhouseUrl: url, clickhouseDatabase: database } = settings;
  const clickhouse = new ClickHouse({ url, database, role: 'write' });
  try {
    return await use(clickhouse);
  } finally {
    await clickhouse.close();
  }
}
