/** Tables that benchmarks read, filled by PostgreSQL itself. */
import type pg from 'pg';
import { benchRows, benchTable } from '../capture.ts';

/** Columns as the demo's transactions have them, without references to other tables. */
const wide = `
  id bigint PRIMARY KEY, reference uuid NOT NULL, account_id bigint NOT NULL, counterparty_id bigint,
  amount numeric(18,4) NOT NULL, fee numeric(18,4), currency char(3) NOT NULL, status public.bench_status NOT NULL,
  description text, details jsonb, labels text[], signature bytea, exchange_rate double precision, origin inet,
  settles_in interval, value_date date NOT NULL, booked_at timestamp, memo text,
  created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL`;

const wideRow = `
  i, gen_random_uuid(), 1 + i % 5000, CASE WHEN i % 5 > 0 THEN 1 + (i * 7) % 5000 END,
  (1 + i % 500 + (i % 9973) / 10000.0)::numeric(18,4), CASE WHEN i % 5 > 2 THEN ((i % 300) / 10.0)::numeric(18,4) END,
  (ARRAY['EUR','USD','GBP','JPY','CHF'])[1 + i % 5], (ARRAY['pending','booked','reversed','failed'])[1 + i % 4]::public.bench_status,
  CASE WHEN i % 20 > 0 THEN (ARRAY['Rent','Invoice','Salary','Card payment','Größe ✓'])[1 + i % 5] || ' ' || i % 99999 END,
  CASE WHEN i % 10 > 2 THEN jsonb_build_object('channel', 'app', 'exact', i, 'device', jsonb_build_object('os', 'ios', 'version', 1.5)) END,
  CASE WHEN i % 2 = 0 THEN ARRAY['vip', 'a,b', 'tag ' || i % 7] END,
  CASE WHEN i % 10 > 6 THEN decode(md5(i::text), 'hex') END, CASE WHEN i % 2 = 0 THEN i / 7.0 END,
  CASE WHEN i % 2 = 0 THEN ('10.' || i % 255 || '.0.' || 1 + i % 250)::inet END,
  CASE WHEN i % 5 = 0 THEN make_interval(days => (i % 3)::int, secs => i % 86400) END,
  date '2026-01-01' + (i % 300)::int, CASE WHEN i % 4 > 0 THEN timestamp '2026-01-01' + i * interval '1 second' END,
  CASE WHEN i % 5 = 0 THEN E'a memo,\\twith a tab \\\\ and a backslash, row ' || i END,
  timestamptz '2026-01-01' + i * interval '1.000123 s', timestamptz '2026-01-02' + i * interval '1.000123 s'`;

/** Tables by name: how they are made, and the SELECT of rows 1 to n. */
export const benchTables = {
  /** Eight columns: those of `bench capture`. */
  narrow: { create: benchTable, rows: (count: number) => benchRows(1, count) },
  /** Twenty columns: those of the demo's transactions. */
  wide: {
    create: `CREATE TABLE public.bench (${wide})`,
    rows: (count: number) => `SELECT ${wideRow} FROM generate_series(1, ${count}) i`,
  },
} as const;

export type BenchTable = keyof typeof benchTables;

/** Makes `public.bench` with so many rows, as a table is that has been there for long. */
export async function makeTable(client: pg.Client, table: BenchTable, rows: number): Promise<void> {
  await client.query("CREATE TYPE public.bench_status AS ENUM ('pending', 'booked', 'reversed', 'failed')");
  await client.query(benchTables[table].create);
  await client.query(`INSERT INTO public.bench ${benchTables[table].rows(rows)}`);
  await client.query('VACUUM (ANALYZE, FREEZE) public.bench');
  await client.query('CHECKPOINT');
}
