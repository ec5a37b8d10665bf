/** The replication slot of a source: made after its publication, looked at before it is trusted. */
import type pg from 'pg';
import { SluiceError } from '../../../model/errors.ts';
import { compareLsn } from '../../../model/position.ts';
import { waitForOpenTransactions } from './barrier.ts';
import { type ConnectOptions, quoteName, sqlState, withConnection } from './connection.ts';
import { durablePosition, flushPosition } from './durable.ts';

export interface Names {
  slot: string;
  publication: string;
}

/** Which cluster answers: `system identifier/timeline`. Positions mean nothing in another one. Errors: as `connect`. */
export async function clusterOf(options: Omit<ConnectOptions, 'replication'>): Promise<string> {
  return withConnection({ ...options, replication: true }, async (client) => {
    const { rows } = await client.query<{ systemid: string; timeline: number }>('IDENTIFY_SYSTEM');
    return `${rows[0]!.systemid}/${rows[0]!.timeline}`;
  });
}

export interface Slot {
  confirmed: string;
  active_pid: number | null;
  /** Why the slot is not one that Sluice could have made, or null. */
  foreign: string | null;
  /** Why the server gave the slot up, or null. */
  invalid: string | null;
  /** The log that the slot needs may be removed at any moment. */
  unreserved: boolean;
  /** Bytes of log that the slot keeps. */
  retained: number;
  /** Bytes of log that may be written before the slot is given up; null = no limit. */
  room: number | null;
  /** Standbys keep the slot too. */
  failover: boolean;
}

/** The slot as the server has it, or undefined when there is none. */
export async function readSlot(client: pg.Client, slot: string): Promise<Slot | undefined> {
  const { rows } = await client.query<Record<string, string | number | boolean | null>>(
    `SELECT coalesce(confirmed_flush_lsn, '0/0')::text AS confirmed, active_pid, wal_status, slot_type, plugin, database, temporary,
       database IS NOT DISTINCT FROM pg_catalog.current_database() AS here, safe_wal_size::float8 AS room,
       pg_catalog.to_jsonb(s)->>'invalidation_reason' AS reason, pg_catalog.to_jsonb(s)->>'failover' AS failover,
       coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn), 0)::float8 AS retained
     FROM pg_catalog.pg_replication_slots s WHERE slot_name = $1`,
    [slot],
  );
  const row = rows[0];
  if (!row) return undefined;
  const ours = row.slot_type === 'logical' && row.plugin === 'pgoutput' && row.here === true && row.temporary === false;
  const what = `${row.slot_type}, ${row.plugin ?? 'no plugin'}, database ${row.database ?? 'none'}`;
  return {
    confirmed: String(row.confirmed),
    active_pid: row.active_pid as number | null,
    foreign: ours ? null : `${what}${row.temporary ? ', temporary' : ''}`,
    invalid: row.wal_status === 'lost' ? String(row.reason ?? 'its log is gone') : null,
    unreserved: row.wal_status === 'unreserved',
    retained: Number(row.retained),
    room: row.room as number | null,
    failover: row.failover === 'true',
  };
}

/** Makes the slot; answers where its stream begins. The publication must be there already: made later, rows are missing. */
async function createSlot(client: pg.Client, slot: string, failover: boolean): Promise<string> {
  const before = await nextTransaction(client);
  const { rows } = await client.query<{ lsn: string }>(
    `SELECT lsn::text FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput', false${failover ? ', false, true' : ''})`,
    [slot],
  );
  if (!(await wereAltered(client, before))) return rows[0]!.lsn;
  await renewSnapshot(client);
  await waitForOpenTransactions(client);
  // Behind all of them, also where their commits are not on disk yet.
  return durablePosition(client);
}

async function nextTransaction(client: pg.Client): Promise<string> {
  const text = 'SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text AS next';
  const { rows } = await client.query<{ next: string }>(text);
  return rows[0]!.next;
}

/**
 * True when a transaction that is not older has altered, emptied or made a table. The server makes a slot in two steps: it waits for all
 * transactions that run, then for those that have begun meanwhile. What one that begins in the first step commits in it, the
 * slot's decoding takes for uncommitted (PostgreSQL 18 and before; test/new_slot.test.ts): of an emptied table it knows no file, and ends;
 * of a new column it knows nothing, and leaves it out of every row.
 */
async function wereAltered(client: pg.Client, since: string): Promise<boolean> {
  const newer = (row: string) => `pg_catalog.age(${row}.xmin) <= pg_catalog.age($1::pg_catalog.xid8::pg_catalog.xid)`;
  const { rows } = await client.query<{ altered: boolean }>(
    `SELECT EXISTS (
       SELECT FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND (${newer('c')}
         OR EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND ${newer('a')})
         OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND ${newer('i')}))
     ) OR EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE ${newer('n')}) AS altered`,
    [since],
  );
  return rows[0]!.altered;
}

/**
 * Has the decoding make its picture of the catalog anew, as it does whenever the catalog changes: from the transactions that have ended by
 * now. Those that begin after this are decoded by it. Errors: `source_unreachable` where the role may not.
 */
async function renewSnapshot(client: pg.Client): Promise<void> {
  try {
    await client.query('CREATE TEMPORARY TABLE sluice_renews_snapshot () ON COMMIT DROP');
  } catch (error) {
    if (sqlState(error) !== '42501') throw error;
    const reason = 'a table was altered while the slot was made, and the role may not make temporary tables';
    const remedy = 'It is tried again. Lasting: GRANT TEMPORARY ON DATABASE … to the role of the source.';
    throw new SluiceError('source_unreachable', reason, remedy, {}, error);
  }
}

/** Has standbys keep the slot too, or not any more, where it was made otherwise. Nobody may read it meanwhile. */
export async function keepThroughFailover(
  session: ConnectOptions,
  client: pg.Client,
  slot: string,
  kept: boolean,
): Promise<void> {
  if ((await readSlot(client, slot))?.failover !== !kept) return;
  await freeSlot(client, slot);
  await withConnection({ ...session, replication: true }, async (sender) => {
    await sender.query(`ALTER_REPLICATION_SLOT ${quoteName(slot)} (FAILOVER ${kept})`);
  });
}

/** True while the session that reads the slot neither waits for log nor for its reader to take what it sends. */
export async function isDecoding(client: pg.Client, slot: string): Promise<boolean> {
  const { rowCount } = await client.query(
    `SELECT FROM pg_catalog.pg_replication_slots s JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
     WHERE s.slot_name = $1 AND pg_catalog.lower(coalesce(a.wait_event, '')) NOT LIKE 'walsender%'`,
    [slot],
  );
  return rowCount === 1;
}

/** Ends whoever reads the slot: a lease's predecessor that still lives must not read, or acknowledge, any more. */
export async function freeSlot(client: pg.Client, slot: string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const found = await readSlot(client, slot);
    if (!found?.active_pid || found.foreign) return;
    await client.query('SELECT pg_catalog.pg_terminate_backend($1)', [found.active_pid]);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new SluiceError('slot_in_use', `the slot ${slot} is still read by another session`, 'It is tried again.');
}

/**
 * Refuses to go on at a recorded position where the server would skip changes in silence. Errors: `slot_lost`,
 * `slot_ahead`, `source_replaced`.
 */
export async function checkPosition(client: pg.Client, name: string, source: string, position: string): Promise<void> {
  checkSlot(await readSlot(client, name), name, source, position);
  // Only what is on the source's disk is ever sent, and recorded.
  const end = await flushPosition(client);
  if (compareLsn(position, end) <= 0) return;
  throw new SluiceError(
    'source_replaced',
    `the source's log ends at ${end}, before the last recorded batch: the source was set back to an earlier state`,
    `Make the copies anew: sluice sources resync ${source}`,
    { source, position },
  );
}

function checkSlot(slot: Slot | undefined, name: string, source: string, position: string): void {
  const remedy = `Make the copies anew: sluice sources resync ${source}`;
  const place = { source, position };
  if (!slot) throw new SluiceError('slot_lost', `the replication slot ${name} is gone`, remedy, place);
  if (slot.foreign) {
    const reason = `the replication slot ${name} is another's now (${slot.foreign})`;
    throw new SluiceError('slot_lost', reason, `Drop it: SELECT pg_drop_replication_slot('${name}'). ${remedy}`, place);
  }
  if (slot.invalid)
    throw new SluiceError('slot_lost', `the replication slot ${name} was invalidated: ${slot.invalid}`, remedy, place);
  if (compareLsn(slot.confirmed, position) > 0) {
    const reason = `the slot ${name} was confirmed up to ${slot.confirmed}, past the last recorded batch`;
    throw new SluiceError('slot_ahead', reason, remedy, place);
  }
}

/**
 * Refuses a slot that somebody reads, where no record of ours says that it is ours: another installation may copy from this
 * database by the same names, and would lose its slot. Errors: `conflict`.
 */
export async function expectUnread(client: pg.Client, slot: string, source: string): Promise<void> {
  const found = await readSlot(client, slot);
  if (!found?.active_pid) return;
  throw new SluiceError(
    'conflict',
    `the replication slot ${slot} is read by session ${found.active_pid}, and no record here says that it is ours`,
    `Is it another installation's? Then connect under another id. If nobody needs it: SELECT pg_terminate_backend(${found.active_pid}), and start again.`,
    { source },
  );
}

/**
 * Makes the slot anew. One that is there begins before the publication that was just made, perhaps, and its reader may
 * be somebody else: it is replaced only when it is `ours`.
 */
export async function makeSlot(client: pg.Client, slot: string, ours: boolean, failover: boolean): Promise<string> {
  const found = await readSlot(client, slot);
  if (found) {
    if (!ours || found.foreign) {
      throw new SluiceError(
        'conflict',
        `the replication slot ${slot} is there already, and Sluice did not make it${found.foreign ? ` (${found.foreign})` : ''}`,
        `Name another one (options.slot), or drop it: SELECT pg_drop_replication_slot('${slot}')`,
      );
    }
    await freeSlot(client, slot);
    await client.query('SELECT pg_catalog.pg_drop_replication_slot($1)', [slot]);
  }
  return createSlot(client, slot, failover);
}

/** Drops slot and publication; what is not there is no error. */
export async function dropReplication(client: pg.Client, names: Names): Promise<void> {
  await freeSlot(client, names.slot);
  const slot = await readSlot(client, names.slot);
  // Somebody else may have made one of this name since.
  if (slot && !slot.foreign) await client.query('SELECT pg_catalog.pg_drop_replication_slot($1)', [names.slot]);
  await client.query(`DROP PUBLICATION IF EXISTS ${quoteName(names.publication)}`);
}
