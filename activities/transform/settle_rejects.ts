/** What people decide of rows that were held back. */
import type { SettleAnswer, SettleRequest } from '../../model/rejects.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { markRejects, readRejects } from '../load/rejects.ts';

/** Releases or discards the open rejects of an asset that bear these versions. */
export async function settleRejects(clickhouse: ClickHouse, request: SettleRequest): Promise<SettleAnswer> {
  const { asset, action, versions } = request;
  const open = await readRejects(clickhouse, { asset, state: 'open', versions }, versions.length * 2);
  const answer = { asset_id: asset, released: 0, discarded: 0, still_open: 0, superseded: 0 };
  if (action === 'discard') {
    await markRejects(clickhouse, open, { state: 'discarded' });
    return { ...answer, discarded: open.length };
  }
  return answer;
}
