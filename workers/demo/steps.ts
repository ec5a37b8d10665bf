/** What happens in the demo's bank: each step is a few statements inside a transaction. */
import type pg from 'pg';
import { quoteName } from '../../activities/capture/postgresql/connection.ts';
import type { LiveIds } from './ids.ts';
import type { Random } from './random.ts';
import {
  accountRow,
  currencyCodes,
  decimal,
  email,
  limits,
  longText,
  rate,
  tags,
  timestamp,
  transactionRow,
} from './rows.ts';
import type { DemoTable } from './tables.ts';

/** Changes that PostgreSQL confirmed. */
export interface ChangeCounts {
  inserts: number;
  updates: number;
  deletes: number;
}

/** What steps work with. */
export interface Bank {
  client: pg.Client;
  random: Random;
  accounts: LiveIds;
  transactions: LiveIds;
  /** Added to as statements are confirmed. */
  counts: ChangeCounts;
}

/** Beyond so many, customers leave instead of coming. */
const mostAccounts = 20_000;

type Step = (bank: Bank, size: number) => Promise<void>;

/** Rows travel as one JSON parameter, whatever their number: one statement text for each set of columns. */
export async function insertRows(bank: Bank, table: DemoTable, rows: object[]): Promise<number[]> {
  if (rows.length === 0) return [];
  const columns = Object.keys(rows[0]!).map(quoteName).join(', ');
  const target = `public.${quoteName(table)}`;
  const result = await bank.client.query<{ id: string }>(
    `insert into ${target} (${columns}) select ${columns} from json_populate_recordset(null::${target}, $1)
     ${table === 'currencies' ? '' : 'returning id'}`,
    [JSON.stringify(rows)],
  );
  bank.counts.inserts += result.rowCount ?? 0;
  return result.rows.map((row) => Number(row.id));
}

/** Sets the rows' other columns by `key`. */
async function updateRows(bank: Bank, table: DemoTable, key: 'id' | 'code', rows: object[]): Promise<void> {
  if (rows.length === 0) return;
  const target = `public.${quoteName(table)}`;
  const columns = Object.keys(rows[0]!).filter((column) => column !== key);
  const settings = columns.map((column) => `${quoteName(column)} = new.${quoteName(column)}`);
  const result = await bank.client.query(
    `update ${target} as old set ${settings.join(', ')}
       from json_populate_recordset(null::${target}, $1) as new where old.${key} = new.${key}`,
    [JSON.stringify(rows)],
  );
  bank.counts.updates += result.rowCount ?? 0;
}

async function deleteTransactions(bank: Bank, ids: number[]): Promise<void> {
  if (ids.length === 0) return;
  const result = await bank.client.query('delete from public.transactions where id = any($1)', [ids]);
  bank.counts.deletes += result.rowCount ?? 0;
  bank.transactions.remove(ids);
}

/** Rows between accounts that live; none when there are no accounts. */
export function newTransactions(bank: Bank, size: number): ReturnType<typeof transactionRow>[] {
  const now = Date.now();
  const { random, accounts } = bank;
  const parties = accounts.pick(random, size * 2);
  return Array.from({ length: parties.length === 0 ? 0 : size }, () =>
    transactionRow(random, now, random.pick(parties), random.pick(parties)),
  );
}

/** Adds `size` transactions, and sets the balances of some of their accounts. */
const pay: Step = async (bank, size) => {
  const rows = newTransactions(bank, size);
  bank.transactions.add(await insertRows(bank, 'transactions', rows));
  const payers = [...new Set(rows.map((row) => row.account_id))].slice(0, Math.ceil(size / 2));
  const changed = payers.map((id) => ({
    id,
    balance: decimal(bank.random, -50_000, 5_000_000),
    updated_at: timestamp(bank.random, Date.now()),
  }));
  await updateRows(bank, 'accounts', 'id', changed);
};

/** Books or fails transactions; their memos stay as they are. */
const settle: Step = async (bank, size) => {
  const now = timestamp(bank.random, Date.now());
  const rows = bank.transactions.pick(bank.random, size).map((id) => ({
    id,
    status: bank.random.pick(['booked', 'booked', 'booked', 'reversed', 'failed']),
    booked_at: now,
    updated_at: now,
  }));
  await updateRows(bank, 'transactions', 'id', rows);
};

const archive: Step = async (bank, size) => {
  await deleteTransactions(bank, bank.transactions.pick(bank.random, size));
};

/** New customers, far fewer than transactions. */
const onboard: Step = async (bank, size) => {
  if (bank.accounts.size >= mostAccounts) return close(bank, size);
  const now = Date.now();
  const rows = Array.from({ length: Math.ceil(size / 20) }, () => accountRow(bank.random, now));
  bank.accounts.add(await insertRows(bank, 'accounts', rows));
};

/** Customers change what we know of them; now and then their long notes too. */
const profile: Step = async (bank, size) => {
  const { random } = bank;
  const withNotes = random.chance(0.2);
  const rows = bank.accounts.pick(random, Math.ceil(size / 2)).map((id) => ({
    id,
    email: email(random),
    tags: tags(random),
    limits: limits(random),
    frozen: random.chance(0.03),
    updated_at: timestamp(random, Date.now()),
    ...(withNotes ? { notes: random.chance(0.3) ? null : longText(random) } : {}),
  }));
  await updateRows(bank, 'accounts', 'id', rows);
};

/** An account goes, after its transactions. */
const close: Step = async (bank) => {
  const [id] = bank.accounts.pick(bank.random, 1);
  if (id === undefined || bank.accounts.size < 100) return;
  const { rows } = await bank.client.query<{ id: string }>(
    'select id from public.transactions where account_id = $1 order by id',
    [id],
  );
  await deleteTransactions(
    bank,
    rows.map((row) => Number(row.id)),
  );
  const result = await bank.client.query('delete from public.accounts where id = $1', [id]);
  bank.counts.deletes += result.rowCount ?? 0;
  bank.accounts.remove([id]);
};

/** New rates for some currencies. */
const quote: Step = async (bank) => {
  const { random } = bank;
  const rows = currencyCodes
    .filter(() => random.chance(0.4))
    .map((code) => ({ code, rate_to_eur: rate(random), updated_at: timestamp(random, Date.now()) }));
  await updateRows(bank, 'currencies', 'code', rows);
};

/** The same keys several times in one transaction: added, changed, taken away, and some added again. */
const correct: Step = async (bank, size) => {
  const rows = newTransactions(bank, size);
  const ids = await insertRows(bank, 'transactions', rows);
  bank.transactions.add(ids);
  const fees = ids.map((id) => ({ id, fee: decimal(bank.random, 0, 30) }));
  await updateRows(bank, 'transactions', 'id', fees);
  const removed = ids.slice(0, Math.ceil(ids.length / 2));
  await deleteTransactions(bank, removed);
  const again = removed.slice(0, Math.ceil(removed.length / 2)).map((id, index) => ({ id, ...rows[index]! }));
  bank.transactions.add(await insertRows(bank, 'transactions', again));
};

const weights: [Step, number][] = [
  [pay, 50],
  [settle, 22],
  [archive, 10],
  [profile, 7],
  [onboard, 2],
  [close, 1],
  [quote, 2],
  [correct, 6],
];

/**
 * Does what one transaction does, without beginning or ending it: a step or a few of about `size` rows. `most` bounds
 * the table of transactions: from there on, as many leave as come.
 */
export async function act(bank: Bank, size: number, most: number): Promise<void> {
  const { random } = bank;
  for (let left = random.chance(0.2) ? random.between(2, 3) : 1; left > 0; left--) {
    if (bank.transactions.size > most && random.chance(0.5)) await archive(bank, size);
    else if (random.chance(0.03)) await tryAndUndo(bank, size);
    else await chooseStep(random)(bank, size);
  }
}

/** A step whose effects a savepoint takes back. */
async function tryAndUndo(bank: Bank, size: number): Promise<void> {
  const counts = { ...bank.counts };
  const marks = [bank.accounts.mark(), bank.transactions.mark()] as const;
  await bank.client.query('savepoint attempt');
  await chooseStep(bank.random)(bank, size);
  await bank.client.query('rollback to savepoint attempt');
  Object.assign(bank.counts, counts);
  bank.accounts.rollback(marks[0]);
  bank.transactions.rollback(marks[1]);
}

function chooseStep(random: Random): Step {
  let roll = random.next() * weights.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [step, weight] of weights) {
    roll -= weight;
    if (roll < 0) return step;
  }
  return pay;
}
