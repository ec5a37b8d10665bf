/** The ClickHouse sink through the suite of all sinks, on the embedded engine. */
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { ClickHouseSink } from '../activities/load/clickhouse_sink.ts';
import { startParts } from '../workers/embedded/start_parts.ts';
import { sinkConformance } from './conformance/sink.ts';

sinkConformance('clickhouse', async () => {
  const parts = await startParts(['clickhouse']);
  const clickhouse = new ClickHouse({ url: parts.clickhouse.url, database: 'conform', role: 'write' });
  return {
    sink: new ClickHouseSink(clickhouse),
    visible: async (asset) => {
      const { rows } = await clickhouse.table(
        `SELECT toString(id), * EXCEPT (id, _version, _deleted, _committed_at) FROM ${clickhouse.name(asset)} FINAL ORDER BY id`,
      );
      return rows as string[][];
    },
    counted: async (asset) => {
      const { rows } = await clickhouse.table(`SELECT * FROM ${clickhouse.name(`${asset}_current`)} ORDER BY ALL`);
      return rows as string[][];
    },
    crash: async () => {
      await parts.clickhouse.kill();
      await parts.clickhouse.restart();
    },
    close: async () => {
      await clickhouse.close();
      await parts[Symbol.asyncDispose]();
    },
  };
});
