/** What people had Sluice do, in ClickHouse: who, when, what, with which outcome. It outlives Temporal's histories. */
import type { ClickHouse } from './clickhouse.ts';
import { durable } from './tables.ts';
import { isoTime } from './time_text.ts';

const definition = `(
  id String, at DateTime64(3, 'UTC'), via LowCardinality(String), who String, action LowCardinality(String),
  target String, input String, outcome LowCardinality(String), reason String, milliseconds UInt32
) ENGINE = ReplacingMergeTree ORDER BY (at, id)`;

/** One thing that somebody asked for. */
export interface Action {
  id: string;
  /** ISO 8601 in UTC: when it was asked for. */
  at: string;
  /** `rest`, `cli`, `configuration` (declared in YAML), `temporal` (by its UI, its CLI or a program), `worker` (Sluice itself). */
  via: string;
  /** The user, `token` or `loopback` of a REST call, or an identity of Temporal. */
  who: string;
  /** As the CLI and the flows' messages call it, e.g. `start`, `addTables`, `deploy`. */
  action: string;
  /** Id of the source or deployment; of a flow where it is neither. */
  target: string;
  /** Without anything secret. */
  input: Record<string, unknown>;
  outcome: 'done' | 'failed' | 'running';
  /** Why it failed; empty otherwise. */
  reason: string;
  milliseconds: number;
}

/** Makes `_actions` when it is not there. */
export async function createActions(clickhouse: ClickHouse): Promise<void> {
  const name = clickhouse.name('_actions');
  await clickhouse.command(`CREATE TABLE IF NOT EXISTS ${name} ${definition} SETTINGS ${durable}`);
}

/** Stores actions; again changes nothing. */
export async function writeActions(clickhouse: ClickHouse, actions: Action[]): Promise<void> {
  const rows = actions.map((action) => ({ ...action, input: JSON.stringify(action.input) }));
  await clickhouse.insertObjects('_actions', rows);
}

/** Where a page of actions ends. */
export type ActionPlace = [at: string, id: string];

/** Which actions are wanted. */
export interface ActionQuery {
  target?: string;
  from?: string;
  to?: string;
}

/** Recorded actions, the newest first, behind a place. */
export async function readActions(
  clickhouse: ClickHouse,
  wanted: ActionQuery & { before?: ActionPlace; limit: number },
): Promise<Action[]> {
  const { target, from, to, before, limit } = wanted;
  const [at, id] = before ?? [];
  const time = (name: string) => `parseDateTime64BestEffort({${name}:String}, 3, 'UTC')`;
  const conditions = [
    'true',
    target === undefined ? '' : 'a.target = {target:String}',
    from === undefined ? '' : `a.at >= ${time('from')}`,
    to === undefined ? '' : `a.at < ${time('to')}`,
    before === undefined ? '' : `(a.at, a.id) < (${time('at')}, {id:String})`,
  ];
  const given = Object.entries({ target, from, to, at, id }).filter(([, value]) => value !== undefined);
  const rows = await clickhouse.rows<Omit<Action, 'input'> & { input: string }>(
    `SELECT * FROM ${clickhouse.name('_actions')} AS a FINAL WHERE ${conditions.filter(Boolean).join(' AND ')}
     ORDER BY a.at DESC, a.id DESC LIMIT ${limit}`,
    { params: Object.fromEntries(given) },
  );
  return rows.map((row) => {
    return { ...row, at: isoTime(row.at), input: JSON.parse(row.input), milliseconds: Number(row.milliseconds) };
  });
}
