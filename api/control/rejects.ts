/** Rows that are held back: listed, released into their copy, or discarded. */
import { overtakenOfAll } from '../../activities/load/overtaken.ts';
import {
  type RejectFilter,
  type RejectPlace,
  type RejectState,
  rejectPages,
  type StoredReject,
} from '../../activities/load/rejects.ts';
import { rowMark } from '../../activities/load/releases.ts';
import { tableAssetOf } from '../../model/asset.ts';
import { SluiceError } from '../../model/errors.ts';
import { flowNames } from '../../model/messages.ts';
import { rejectsWorkflowId, type SettleAnswer, type SettleRequest, settleLimit } from '../../model/rejects.ts';
import { acted } from './actions.ts';
import type { Control } from './control.ts';
import { pageCursor, readCursor } from './cursor.ts';
import { noTableYet, rowsIfThere, shared } from './figures.ts';
import type { RejectsAnswer, RejectsQuery, SettleBody } from './rule_shapes.ts';
import { runFlow } from './temporal.ts';

/** Rejects that are looked through at once. */
const readAtOnce = 1_000;

const placeShape = ['time', 'text', 'text', 'whole', 'text'] as const;

/** Rejects, the newest first. Errors: `configuration` for a cursor that is none. */
export async function listRejects(control: Control, wanted: RejectsQuery): Promise<RejectsAnswer> {
  const { rule, state = 'open', limit = 100 } = wanted;
  const asset = wanted.asset === undefined ? undefined : tableAssetOf(wanted.asset);
  const after = wanted.cursor === undefined ? undefined : (readCursor(wanted.cursor, placeShape) as RejectPlace);
  const found = await findRejects(control, { asset, check: rule, after }, state, limit + 1);
  const page = found.slice(0, limit);
  const last = found.length > limit ? page.at(-1) : undefined;
  const items = page.map(({ asset, key, row, batch, unsent: _, ...rest }) => {
    return { asset_id: asset, key: JSON.parse(key), row: JSON.parse(row), batch_id: batch, ...rest };
  });
  return {
    items,
    next_cursor: last ? pageCursor([last.changed_at, last.asset, last.key, last.version, last.check]) : null,
  };
}

/** Rejects in a state by now: of what is stored as open, the copy tells what is of the past. */
async function findRejects(
  control: Control,
  filter: RejectFilter,
  state: RejectState,
  limit: number,
  isWanted: (reject: StoredReject) => boolean = () => true,
): Promise<StoredReject[]> {
  const { clickhouse } = control;
  const states: RejectState[] = state === 'superseded' ? ['open', state] : [state];
  const found: StoredReject[] = [];
  try {
    for await (const page of rejectPages(clickhouse, { ...filter, states }, Math.max(limit, readAtOnce))) {
      const wanted = page.filter(isWanted);
      const open = wanted.filter((reject) => reject.state === 'open');
      for (const reject of await overtakenOfAll(clickhouse, open)) reject.state = 'superseded';
      found.push(...wanted.filter((reject) => reject.state === state));
      if (found.length >= limit) break;
    }
  } catch (error) {
    if (!noTableYet(error)) throw error;
  }
  return found.slice(0, limit);
}

/** How many rejects are open, by asset. Beyond the newest hundred thousand, those that are of the past count, too. */
export async function openRejects(control: Control): Promise<Map<string, number>> {
  return await shared(control, 'open rejects', async () => {
    const open = `${control.clickhouse.name('_rejects')} AS r FINAL WHERE state = 'open'`;
    const counts = await rowsIfThere<{ asset: string; rejects: string }>(
      control,
      `SELECT asset, toString(count()) AS rejects FROM ${open} GROUP BY asset`,
    );
    const found = new Map(counts.map(({ asset, rejects }) => [asset, Number(rejects)]));
    if (found.size === 0) return found;
    const newest = await rowsIfThere<Pick<StoredReject, 'asset' | 'key' | 'version'>>(
      control,
      `SELECT asset, key, toString(r.version) AS version FROM ${open} ORDER BY changed_at DESC LIMIT 100000`,
    );
    for (const { asset } of await overtakenOfAll(control.clickhouse, newest))
      found.set(asset, Math.max(0, (found.get(asset) ?? 0) - 1));
    return found;
  });
}

/**
 * Writes open rejects into their copy at their own versions, as far as they are right by now; or takes them off the list.
 * Errors: `not_found` when there is no such row, `conflict` while somebody else does so for that asset.
 */
export async function settleRejects(
  control: Control,
  action: SettleRequest['action'],
  { asset_id, keys, rule }: SettleBody,
): Promise<SettleAnswer> {
  const asset = tableAssetOf(asset_id);
  const isNamed = ({ key }: StoredReject) => keys === undefined || keys.some((one) => isKey(key, one));
  const chosen = await findRejects(control, { asset, check: rule }, 'open', settleLimit, isNamed);
  if (chosen.length === 0) {
    const which = keys === undefined ? '' : ' with these keys';
    const remedy = 'See what there is: `npx sluice rejects list`.';
    throw new SluiceError('not_found', `there are no open rejects of ${asset}${which}`, remedy);
  }
  // Keys are data: what travels through Temporal is versions and marks.
  const request: SettleRequest = {
    asset,
    action,
    versions: [...new Set(chosen.map(({ version }) => version))],
    rows: [...new Set(chosen.map(rowMark))],
    ...(rule !== undefined && { rule }),
  };
  const input = { rows: chosen.length, ...(rule === undefined ? {} : { rule }) };
  return await acted(control, { action: `${action} rejects`, target: asset, input }, () =>
    runFlow<SettleAnswer>(control, {
      type: flowNames.settleRejects,
      id: rejectsWorkflowId(asset),
      input: request,
      summary: `${action} ${chosen.length} rejected rows of ${asset}`.slice(0, 200),
    }),
  );
}

/** A plain key means the one column of it. */
function isKey(stored: string, wanted: string | number | Record<string, unknown>): boolean {
  const fields = Object.entries(JSON.parse(stored) as Record<string, string | null>);
  if (typeof wanted !== 'object') return fields.length === 1 && fields[0]![1] === String(wanted);
  return fields.length === Object.keys(wanted).length && fields.every(([name, text]) => isText(wanted[name], text));
}

function isText(value: unknown, text: string | null): boolean {
  return value === undefined ? false : (value === null ? null : String(value)) === text;
}
