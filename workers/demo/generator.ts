/**
 * The demo's bank: writes financial transactions into PostgreSQL, so that there is something to capture. A process of
 * its own in the embedded stack, and the writer of tests and benchmarks. It writes only into tables that it made, and
 * takes its database from --database-url or SLUICE_DEMO_DATABASE_URL, never from DATABASE_URL: that one is the user's.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type pg from 'pg';
import { connect, sourceError } from '../../activities/capture/postgresql/connection.ts';
import { asSluiceError, describeError, SluiceError } from '../../model/errors.ts';
import { isEntryPoint, whenUnwanted } from '../child.ts';
import { LiveIds } from './ids.ts';
import { seededRandom } from './random.ts';
import { accountRow, currencyRows } from './rows.ts';
import { act, type Bank, type ChangeCounts, insertRows, newTransactions } from './steps.ts';
import { createTables } from './tables.ts';

export interface GeneratorOptions {
  databaseUrl: string;
  /** Changes a second, 0 to 100,000; default 200. 0 = only the first rows. */
  rate?: number;
  /** The same seed on the same tables gives the same rows, but for their times. Default `1`. */
  seed?: string;
  /** Rows that are there before changes begin; default 2,000 and 10,000. */
  accounts?: number;
  transactions?: number;
  /** The table of transactions grows no larger than about this; default 200,000 rows. */
  most?: number;
  /** Ends by itself after so many changes. */
  changes?: number;
  /** Called once, when the first rows are there. */
  onReady?: () => void;
  /** Takes lines for people. */
  log?: (line: string) => void;
}

/** What PostgreSQL confirmed, the first rows included. A commit whose answer was lost is not in it. */
export interface GeneratorTotals extends ChangeCounts {
  committed: number;
  rolledBack: number;
}

/**
 * Writes until `signal`, and then finishes its transaction. Lost connections and failed transactions are tried again.
 * Errors: `conflict` (tables of that name are not the demo's), `source_refused`, `unexpected`.
 */
export async function runGenerator(options: GeneratorOptions, signal: AbortSignal): Promise<GeneratorTotals> {
  const generator = new Generator(options, signal);
  for (let failures = 0; ; failures++) {
    const before = generator.totals.committed;
    try {
      await generator.session();
      return generator.totals;
    } catch (error) {
      if (!mayPass(error)) throw sourceError(error);
      if (signal.aborted) return generator.totals;
      if (generator.totals.committed > before) failures = 0;
      const seconds = Math.min(5, 0.25 * 2 ** failures);
      options.log?.(`${sourceError(error).message}; trying again in ${seconds} s`);
      await pause(seconds * 1000, signal);
    }
  }
}

/** Lost connections, deadlocks and the like; and rows that somebody else took away (class 23), which are looked up anew. */
function mayPass(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return sourceError(error).transient || (typeof code === 'string' && code.startsWith('23'));
}

/** Sleeps, or less when the signal comes. */
async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await sleep(milliseconds, undefined, { signal }).catch(() => {});
}

const reportEvery = 10_000;

class Generator {
  readonly totals: GeneratorTotals = { inserts: 0, updates: 0, deletes: 0, committed: 0, rolledBack: 0 };
  readonly #options: GeneratorOptions;
  readonly #signal: AbortSignal;
  readonly #rate: number;
  readonly #accounts = new LiveIds();
  readonly #transactions = new LiveIds();
  #ready = false;

  constructor(options: GeneratorOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
    this.#rate = options.rate ?? 200;
  }

  /** One connection: sets up what is missing, then changes rows until the signal. */
  async session(): Promise<void> {
    const client = await connect({
      connectionString: this.#options.databaseUrl,
      applicationName: 'sluice demo generator',
    });
    try {
      await createTables(client);
      await this.#load(client);
      const random = seededRandom(`${this.#options.seed ?? '1'}/${await lastId(client)}`);
      const bank: Bank = {
        client,
        random,
        accounts: this.#accounts,
        transactions: this.#transactions,
        counts: noChanges(),
      };
      await this.#fill(bank);
      if (this.#signal.aborted) return;
      this.#announce();
      await this.#change(bank);
    } finally {
      await client.end().catch(() => {});
    }
  }

  async #load(client: pg.Client): Promise<void> {
    for (const [table, ids] of [
      ['accounts', this.#accounts],
      ['transactions', this.#transactions],
    ] as const) {
      const { rows } = await client.query<{ id: string }>(`select id from public.${table} order by id`);
      ids.replace(rows.map((row) => Number(row.id)));
    }
  }

  /** Adds what is missing of the first rows, a part at a time: a fill that was cut short goes on. */
  async #fill(bank: Bank): Promise<void> {
    const { accounts = 2_000, transactions = 10_000 } = this.#options;
    const { random } = bank;
    const { rows } = await bank.client.query<{ code: string }>('select code from public.currencies');
    const there = new Set(rows.map((row) => row.code));
    const missing = currencyRows(random, Date.now()).filter((row) => !there.has(row.code));
    if (missing.length > 0) await this.#transact(bank, () => insertRows(bank, 'currencies', missing), false);
    while (bank.accounts.size < accounts && !this.#signal.aborted) {
      const now = Date.now();
      const some = Array.from({ length: Math.min(500, accounts - bank.accounts.size) }, () => accountRow(random, now));
      await this.#transact(bank, async () => bank.accounts.add(await insertRows(bank, 'accounts', some)), false);
    }
    while (accounts > 0 && bank.transactions.size < transactions && !this.#signal.aborted) {
      const some = newTransactions(bank, Math.min(1_000, transactions - bank.transactions.size));
      await this.#transact(
        bank,
        async () => bank.transactions.add(await insertRows(bank, 'transactions', some)),
        false,
      );
    }
  }

  #announce(): void {
    if (this.#ready) return;
    this.#ready = true;
    const { log, seed = '1', onReady } = this.#options;
    log?.(
      `${this.#accounts.size} accounts, ${this.#transactions.size} transactions; seed ${seed}, ${this.#rate} changes/s`,
    );
    onReady?.();
  }

  /** Transactions of random size, paced by the clock. Some are rolled back. */
  async #change(bank: Bank): Promise<void> {
    const { most = 200_000, changes = Number.POSITIVE_INFINITY } = this.#options;
    const { random } = bank;
    const pace = new Pace(this.#rate);
    const size = Math.min(1_000, Math.max(4, this.#rate / 40));
    const report = this.#reporter();
    let left = changes;
    while (!this.#signal.aborted && left > 0) {
      const wait = pace.wait();
      if (wait > 0) await pause(wait, this.#signal);
      if (wait > 50) continue;
      const rows = random.between(1, Math.ceil(size * 2)) * (random.chance(0.01) ? 10 : 1);
      const done = await this.#transact(bank, () => act(bank, rows, most), random.chance(0.03));
      pace.add(done);
      left -= done;
      report(done);
    }
  }

  /** Runs `work` in a transaction and answers how many changes it made: none when it was rolled back. */
  async #transact(bank: Bank, work: () => Promise<unknown>, rollBack: boolean): Promise<number> {
    bank.counts = noChanges();
    await bank.client.query('begin');
    await work();
    await bank.client.query(rollBack ? 'rollback' : 'commit');
    if (rollBack) {
      bank.accounts.rollback(0);
      bank.transactions.rollback(0);
      this.totals.rolledBack++;
      return 0;
    }
    bank.accounts.commit();
    bank.transactions.commit();
    const { inserts, updates, deletes } = bank.counts;
    this.totals.inserts += inserts;
    this.totals.updates += updates;
    this.totals.deletes += deletes;
    this.totals.committed++;
    return inserts + updates + deletes;
  }

  /** Says every ten seconds how fast it goes. */
  #reporter(): (changes: number) => void {
    let since = performance.now();
    let changes = 0;
    return (more) => {
      changes += more;
      const passed = performance.now() - since;
      if (passed < reportEvery) return;
      const { inserts, updates, deletes } = this.totals;
      const rate = Math.round((changes * 1000) / passed);
      this.#options.log?.(`${rate} changes/s; so far ${inserts} inserts, ${updates} updates, ${deletes} deletes`);
      since = performance.now();
      changes = 0;
    };
  }
}

function noChanges(): ChangeCounts {
  return { inserts: 0, updates: 0, deletes: 0 };
}

/** Rises with each row ever added: keeps a restarted generator from making the same rows once more. */
async function lastId(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ last: string | null }>(
    `select pg_sequence_last_value(pg_get_serial_sequence('public.transactions', 'id')::regclass) as last`,
  );
  return rows[0]?.last ?? '0';
}

/** Says how long to wait so that changes come at a rate. At most a second's worth of delay is made up for. */
class Pace {
  readonly #rate: number;
  /** When the changes so far should have been made. */
  #due = performance.now();

  constructor(rate: number) {
    this.#rate = rate;
  }

  add(changes: number): void {
    this.#due += (changes * 1000) / this.#rate;
  }

  /** Milliseconds, at most a second. */
  wait(): number {
    if (this.#rate === 0) return 1_000;
    const now = performance.now();
    this.#due = Math.max(this.#due, now - 1_000);
    return Math.min(1_000, Math.max(0, this.#due - now));
  }
}

/** Options of the process: flags, and the environment for the database. Errors: `configuration`. */
function readOptions(args: string[], environment: NodeJS.ProcessEnv): GeneratorOptions {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    args,
    options: {
      'database-url': text,
      rate: text,
      seed: text,
      accounts: text,
      transactions: text,
      most: text,
      changes: text,
    },
  });
  const databaseUrl = values['database-url'] || environment.SLUICE_DEMO_DATABASE_URL;
  if (!databaseUrl) {
    throw new SluiceError(
      'configuration',
      'the generator was given no database',
      'Give --database-url or SLUICE_DEMO_DATABASE_URL. DATABASE_URL is never used: the generator writes.',
    );
  }
  return {
    databaseUrl,
    seed: values.seed,
    rate: readNumber('--rate', values.rate, 0, 100_000),
    accounts: readNumber('--accounts', values.accounts, 1, 20_000),
    transactions: readNumber('--transactions', values.transactions, 0, 10_000_000),
    most: readNumber('--most', values.most, 1, 100_000_000),
    changes: readNumber('--changes', values.changes, 1, Number.MAX_SAFE_INTEGER),
  };
}

function readNumber(flag: string, text: string | undefined, least: number, most: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() !== '' && value >= least && value <= most) return value;
  throw new SluiceError(
    'configuration',
    `${flag} ${text} is not a number from ${least} to ${most}`,
    `Correct ${flag}.`,
  );
}

/** A database that does not answer any more must not keep the process from ending. */
const patience = 8_000;

async function main(): Promise<void> {
  const log = (line: string): void => {
    process.stderr.write(`generator: ${line}\n`);
  };
  const ended = new AbortController();
  whenUnwanted((why) => {
    log(`${why}: finishing the transaction`);
    ended.abort();
    setTimeout(() => process.exit(1), patience).unref();
  });
  const onReady = (): void => {
    process.stdout.write('{"ready":true}\n');
  };
  const options = readOptions(process.argv.slice(2), process.env);
  const totals = await runGenerator({ ...options, log, onReady }, ended.signal);
  const { inserts, updates, deletes, committed, rolledBack } = totals;
  log(
    `done: ${inserts} inserts, ${updates} updates, ${deletes} deletes; ${committed} commits, ${rolledBack} rollbacks`,
  );
  process.exit(0);
}

if (isEntryPoint(import.meta.url)) {
  main().catch((error: unknown) => {
    process.stderr.write(`generator: ${describeError(asSluiceError(error))}\n`);
    process.exit(1);
  });
}
