/** Every finding of preflight, provoked on a real PostgreSQL by a role that is no superuser. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { connect } from '../activities/capture/postgresql/connection.ts';
import { preflight } from '../activities/capture/postgresql/preflight.ts';
import { SluiceError } from '../model/errors.ts';
import type { CaptureConfig, Finding } from '../model/source.ts';
import { type SourceServer, startSource } from './source_server.ts';

let server: SourceServer;
beforeAll(async () => {
  server = await startSource('max_slot_wal_keep_size=-1');
  await server.run("CREATE ROLE capture LOGIN PASSWORD 'secret'; CREATE ROLE clerk LOGIN PASSWORD 'secret'");
}, 60_000);
afterAll(() => server?.stop());

/** Each test has a database of its own, owned by the capturing role, which may replicate. */
let database = '';
let count = 0;
beforeEach(async () => {
  database = `shop_${++count}`;
  await server.run('ALTER ROLE capture REPLICATION NOBYPASSRLS; ALTER ROLE capture RESET ALL');
  await server.run(`CREATE DATABASE ${database}`);
  await server.run(`GRANT CREATE ON DATABASE ${database} TO capture; GRANT ALL ON SCHEMA public TO capture`, database);
});

const config = (more: Partial<CaptureConfig> = {}): CaptureConfig => ({
  poll_interval: 1,
  mode: 'copy',
  exclude_columns: {},
  options: {},
  ...more,
});

async function look(more: Partial<CaptureConfig> = {}, role = 'capture') {
  const client = await server.session(role, database);
  const answer = await preflight(client, 'main', config(more));
  await client.end();
  return answer;
}

const admin = (sql: string) => server.run(sql, database);
/** Statements of the capturing role, so that it owns what they make. */
const own = (sql: string) => server.run(sql, database, 'capture');

const blockers = (findings: Finding[]) => findings.filter((finding) => finding.blocking);
const codes = (findings: Finding[]) => findings.map((finding) => finding.code);
function only(findings: Finding[], code: string): Finding {
  const found = findings.filter((finding) => finding.code === code);
  expect(found, JSON.stringify(findings, null, 1)).toHaveLength(1);
  return found[0]!;
}
/** The SQL of a remedy, as people would paste it: without the words around it. */
function sqlOf(finding: Finding): string {
  const [text = ''] = finding.remedy.split(' as superuser');
  return text.slice(text.search(/\b(ALTER|GRANT|CREATE|SELECT)\b/), text.lastIndexOf(';') + 1);
}

describe('a source that is ready', () => {
  it('has no blocking finding, and its tables are those with a key', async () => {
    await own('CREATE TABLE public.accounts (id int PRIMARY KEY, name text); CREATE TABLE public.notes (a text)');
    const { findings, tables } = await look();
    expect(blockers(findings)).toEqual([]);
    expect(tables.map((table) => table.asset_id)).toEqual(['main_accounts']);
    expect(only(findings, 'no_key')).toMatchObject({ blocking: false, table: 'public.notes' });
    expect(Object.keys(tables[0]!)).not.toContain('access');
  });

  it('is left as it was', async () => {
    await own('CREATE TABLE public.accounts (id int PRIMARY KEY)');
    await look();
    const { rows } = await admin(
      'SELECT (SELECT count(*)::int FROM pg_publication) + (SELECT count(*)::int FROM pg_replication_slots) AS made',
    );
    expect(rows[0].made).toBe(0);
  });
});

describe('the server', () => {
  it('must write a logical log, have room and keep the role writing', async () => {
    await own('CREATE TABLE public.accounts (id int PRIMARY KEY)');
    await admin("SELECT pg_create_logical_replication_slot('other', 'pgoutput')");
    await admin('ALTER ROLE capture NOREPLICATION; ALTER ROLE capture SET default_transaction_read_only = on');
    await admin("SELECT pg_drop_replication_slot('other')");
    await server.restart(
      'wal_level=replica',
      'max_replication_slots=1',
      'max_wal_senders=0',
      'max_slot_wal_keep_size=-1',
    );
    try {
      await admin("SELECT pg_create_physical_replication_slot('other')");
      const { findings } = await look();
      expect(codes(blockers(findings)).sort()).toEqual(
        ['no_free_slot', 'no_free_walsender', 'read_only', 'replication_privilege', 'wal_level'].sort(),
      );
      expect(codes(findings)).toContain('fsync_off');
      expect(codes(findings)).toContain('unbounded_log');
      await server.run(sqlOf(only(findings, 'replication_privilege')));
      await server.run(sqlOf(only(findings, 'read_only')));
      expect(codes((await look()).findings)).not.toContain('replication_privilege');
      expect(codes((await look()).findings)).not.toContain('read_only');
    } finally {
      await admin("SELECT pg_drop_replication_slot('other')");
      await server.restart();
    }
  });

  it('may limit the log it keeps, which is worth knowing', async () => {
    await server.restart('max_slot_wal_keep_size=64MB', 'idle_replication_slot_timeout=1h');
    try {
      const { findings } = await look();
      expect(only(findings, 'bounded_log')).toMatchObject({ blocking: false });
      expect(only(findings, 'idle_slot_timeout').detail).toContain('1h');
      expect(codes(findings)).not.toContain('unbounded_log');
    } finally {
      await server.restart();
    }
  });

  it('must have text in a known encoding', async () => {
    await server.run(`CREATE DATABASE ascii_${count} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0`);
    await server.run(`CREATE DATABASE latin_${count} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`);
    database = `ascii_${count}`;
    expect(only((await look()).findings, 'encoding')).toMatchObject({ blocking: true });
    database = `latin_${count}`;
    expect(codes((await look()).findings)).not.toContain('encoding');
  });
});

describe('the slot', () => {
  it('may be there already, but not as something else', async () => {
    await own('CREATE TABLE public.accounts (id int PRIMARY KEY)');
    await admin("SELECT pg_create_logical_replication_slot('sluice_main', 'pgoutput')");
    try {
      expect(blockers((await look()).findings)).toEqual([]);
      const home = database;
      database = 'postgres';
      const finding = only((await look()).findings, 'slot_foreign');
      expect(finding.detail).toContain(home);
      expect((await look({ options: { slot: 'another' } })).findings.map(({ code }) => code)).not.toContain(
        'slot_foreign',
      );
    } finally {
      await server.run("SELECT pg_drop_replication_slot('sluice_main')");
    }
  });

  it('is of no use once its log is gone', async () => {
    await server.restart('max_slot_wal_keep_size=1MB', 'max_wal_size=32MB');
    try {
      await admin("SELECT pg_create_logical_replication_slot('sluice_main', 'pgoutput')");
      for (let round = 0; round < 6; round++)
        await admin('CREATE TABLE public.x (); DROP TABLE public.x; SELECT pg_switch_wal()');
      await admin('CHECKPOINT');
      expect(only((await look()).findings, 'slot_lost')).toMatchObject({ blocking: true });
    } finally {
      await server.run("SELECT pg_drop_replication_slot('sluice_main')");
      await server.restart();
    }
  });
});

describe('the publication', () => {
  it('needs owners and CREATE; each remedy works', async () => {
    await admin('CREATE TABLE public.accounts (id int PRIMARY KEY); GRANT SELECT ON public.accounts TO capture');
    await admin('ALTER TABLE public.accounts OWNER TO clerk');
    await admin(`REVOKE CREATE ON DATABASE ${database} FROM capture`);
    const finding = only((await look()).findings, 'publication_privilege');
    expect(finding.remedy).toContain('GRANT "clerk" TO "capture";');
    const statement = /CREATE PUBLICATION.*?\);/.exec(finding.remedy)![0];
    await admin(statement);
    expect(blockers((await look()).findings)).toEqual([]);
    await admin('DROP PUBLICATION sluice_main');
    await admin(finding.remedy.slice(finding.remedy.indexOf('let the role make it: ') + 22));
    expect(blockers((await look()).findings)).toEqual([]);
    await server.run('REVOKE clerk FROM capture');
  });

  it('must carry all tables, whole, with all operations', async () => {
    await admin('CREATE TABLE public.a (id int PRIMARY KEY, x int, y int)');
    await admin('CREATE TABLE public.b (id int PRIMARY KEY, x int); CREATE TABLE public.c (id int PRIMARY KEY)');
    await admin('GRANT SELECT ON ALL TABLES IN SCHEMA public TO capture');
    await admin(`CREATE PUBLICATION sluice_main FOR TABLE public.a (id, x), public.b WHERE (id > 5)
      WITH (publish = 'insert, update', publish_via_partition_root = true)`);
    const { findings } = await look();
    expect(codes(blockers(findings)).sort()).toEqual([
      'publication_column_list',
      'publication_lacks_tables',
      'publication_operations',
      'publication_row_filter',
      'publication_via_root',
    ]);
    expect(only(findings, 'publication_column_list')).toMatchObject({
      table: 'public.a',
      detail: expect.stringContaining('y'),
    });
    expect(only(findings, 'publication_row_filter')).toMatchObject({ table: 'public.b' });
    expect(codes(blockers((await look({ tables: ['a'], exclude_columns: { a: ['y'] } })).findings))).not.toContain(
      'publication_column_list',
    );
    for (const finding of blockers(findings)) await admin(sqlOf(finding));
    expect(blockers((await look()).findings)).toEqual([]);
  });

  it('must not send generated columns', async () => {
    await own('CREATE TABLE public.a (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)');
    await own('CREATE PUBLICATION sluice_main FOR TABLE public.a WITH (publish_generated_columns = stored)');
    const finding = only((await look()).findings, 'publication_generated');
    expect(blockers((await look({ exclude_columns: { a: ['twice'] } })).findings)).toEqual([]);
    await own(sqlOf(finding));
    expect(blockers((await look()).findings)).toEqual([]);
  });

  it('of all tables is a danger to its neighbours', async () => {
    await own('CREATE TABLE public.accounts (id int PRIMARY KEY)');
    await admin('CREATE PUBLICATION sluice_main FOR ALL TABLES');
    const { findings } = await look();
    expect(blockers(findings)).toEqual([]);
    expect(codes(findings)).toContain('publication_all_tables');
  });
});

describe('a table', () => {
  it('must be there, and a near name is offered', async () => {
    await own(
      'CREATE SCHEMA sales; CREATE TABLE public.accounts (id int PRIMARY KEY); CREATE TABLE sales."Orders" (id int PRIMARY KEY)',
    );
    const { findings, tables } = await look({ tables: ['acounts', 'orders', 'nothing_like_it', 'x_*', 'accounts'] });
    const missing = findings.filter((finding) => finding.code === 'table_missing');
    expect(missing.map(({ table, remedy }) => [table, remedy.slice(0, 30)])).toEqual([
      ['acounts', 'Did you mean accounts?'],
      ['orders', 'Did you mean sales.Orders?'],
      ['nothing_like_it', expect.stringContaining('Name a table')],
      ['x_*', expect.stringContaining('Name a table')],
    ]);
    expect(missing.every(({ blocking }) => blocking)).toBe(true);
    expect(tables.map(({ table }) => table)).toEqual(['accounts']);
  });

  it('is looked for in public when none is named', async () => {
    expect(only((await look()).findings, 'no_tables')).toMatchObject({ blocking: true });
  });

  it('must be readable; the remedy is exact', async () => {
    await admin('CREATE SCHEMA sales; CREATE TABLE sales.orders (id int PRIMARY KEY, secret text, "no te" text)');
    await admin('CREATE TABLE sales.lines (id int PRIMARY KEY); ALTER TABLE sales.lines OWNER TO clerk');
    await admin('CREATE PUBLICATION sluice_main FOR TABLE sales.orders, sales.lines');
    const tables = ['sales.*'];
    const denied = (await look({ tables })).findings.filter(({ code }) => code === 'select_privilege');
    expect(denied.map(({ table }) => table)).toEqual(['sales.lines', 'sales.orders']);
    expect(denied[0]!.remedy).toContain(
      'GRANT USAGE ON SCHEMA "sales" TO "capture"; GRANT SELECT ON "sales"."lines" TO "capture";',
    );
    for (const finding of denied) await admin(sqlOf(finding));
    expect(blockers((await look({ tables })).findings)).toEqual([]);
    await admin('REVOKE SELECT ON sales.orders FROM capture; GRANT SELECT (id) ON sales.orders TO capture');
    const partly = only((await look({ tables })).findings, 'select_privilege');
    await admin(sqlOf(partly));
    expect(blockers((await look({ tables })).findings)).toEqual([]);
  });

  it('must be an ordinary one', async () => {
    await own(`CREATE VIEW public.looks AS SELECT 1 AS a; CREATE MATERIALIZED VIEW public.kept AS SELECT 1 AS a;
      CREATE UNLOGGED TABLE public.fleeting (a int PRIMARY KEY)`);
    const tables = ['looks', 'kept', 'fleeting'];
    const { findings } = await look({ tables });
    expect(blockers(findings).map(({ code, table }) => [code, table])).toEqual(
      [
        ['not_a_table', 'public.kept'],
        ['not_a_table', 'public.looks'],
        ['unlogged', 'public.fleeting'],
      ].sort((a, b) => (a[1]! < b[1]! ? -1 : 1)),
    );
    await own(sqlOf(only(findings, 'unlogged')));
    expect(blockers((await look({ tables: ['fleeting'] })).findings)).toEqual([]);
  });

  it('must have a key; each remedy works where it is exact', async () => {
    await own(`CREATE TABLE public.keyless (a int);
      CREATE TABLE public.unique_only (a int NOT NULL UNIQUE);
      CREATE TABLE public.deferred (a int PRIMARY KEY DEFERRABLE, b int NOT NULL UNIQUE);
      CREATE TABLE public.nothing (a int PRIMARY KEY); ALTER TABLE public.nothing REPLICA IDENTITY NOTHING;
      CREATE TABLE public.generated (a int, b int GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY, c int NOT NULL UNIQUE);
      CREATE TABLE public.gone (a int PRIMARY KEY, b int NOT NULL UNIQUE);
      ALTER TABLE public.gone REPLICA IDENTITY USING INDEX gone_b_key; ALTER TABLE public.gone DROP CONSTRAINT gone_b_key`);
    const tables = ['keyless', 'unique_only', 'deferred', 'nothing', 'generated', 'gone'];
    const { findings, tables: usable } = await look({ tables });
    expect(usable).toEqual([]);
    // What a publication would do to these tables, PostgreSQL itself says.
    for (const { table, detail } of blockers(findings)) {
      expect(detail).toContain('in a publication, every UPDATE and DELETE of it would fail');
      await own(`INSERT INTO ${table} DEFAULT VALUES`).catch(() => {});
      await own(`CREATE PUBLICATION trial FOR TABLE ${table}`);
      await expect(own(`DELETE FROM ${table}`), table).rejects.toThrow(/cannot delete from table/);
      await own('DROP PUBLICATION trial');
    }
    await own('ALTER TABLE public.keyless REPLICA IDENTITY FULL');
    const full = await look({ tables: ['keyless'] });
    expect(blockers(full.findings)).toEqual([]);
    expect(only(full.findings, 'counted_rows').detail).toContain('rows that are alike are counted');
    await own('CREATE PUBLICATION trial FOR TABLE public.keyless; DELETE FROM public.keyless; DROP PUBLICATION trial');
    expect(Object.fromEntries(blockers(findings).map(({ code, table }) => [table, code]))).toEqual({
      'public.keyless': 'no_key',
      'public.unique_only': 'no_key',
      'public.deferred': 'key_deferrable',
      'public.nothing': 'identity_nothing',
      'public.generated': 'key_generated',
      'public.gone': 'identity_index_gone',
    });
    for (const finding of blockers(findings)) {
      if (finding.table !== 'public.keyless')
        await own(sqlOf({ ...finding, remedy: finding.remedy.split(' Or ')[0]! }));
    }
    const after = await look({ tables });
    expect(blockers(after.findings)).toEqual([]);
    expect(after.tables).toHaveLength(6);
  });

  it('must have a key that can be compared', async () => {
    await admin(`CREATE TYPE public.path;
      CREATE FUNCTION public.path_in(cstring) RETURNS public.path AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
      CREATE FUNCTION public.path_out(public.path) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
      CREATE TYPE public.path (INPUT = public.path_in, OUTPUT = public.path_out, LIKE = text);
      CREATE FUNCTION public.path_eq(public.path, public.path) RETURNS bool AS 'texteq' LANGUAGE internal IMMUTABLE STRICT;
      CREATE FUNCTION public.path_lt(public.path, public.path) RETURNS bool AS 'text_lt' LANGUAGE internal IMMUTABLE STRICT;
      CREATE FUNCTION public.path_cmp(public.path, public.path) RETURNS int AS 'bttextcmp' LANGUAGE internal IMMUTABLE STRICT;
      CREATE OPERATOR public.= (LEFTARG = public.path, RIGHTARG = public.path, FUNCTION = public.path_eq);
      CREATE OPERATOR public.< (LEFTARG = public.path, RIGHTARG = public.path, FUNCTION = public.path_lt);
      CREATE OPERATOR CLASS public.path_ops DEFAULT FOR TYPE public.path USING btree AS
        OPERATOR 1 public.<, OPERATOR 3 public.=, FUNCTION 1 public.path_cmp(public.path, public.path)`);
    await own('CREATE TABLE public.tree (at public.path PRIMARY KEY, id int NOT NULL UNIQUE)');
    const finding = only((await look()).findings, 'key_type');
    expect(finding.detail).toContain('at public.path');
    await own(sqlOf(finding));
    expect(codes((await look()).findings)).not.toContain('key_type');
  });

  it('must show all its rows', async () => {
    await admin('CREATE TABLE public.mine (id int PRIMARY KEY); GRANT SELECT ON public.mine TO capture');
    await admin(
      'ALTER TABLE public.mine ENABLE ROW LEVEL SECURITY; CREATE PUBLICATION sluice_main FOR TABLE public.mine',
    );
    const { findings } = await look();
    expect(codes(blockers(findings))).toEqual(['row_security']);
    await server.run(sqlOf(only(findings, 'row_security')));
    expect(blockers((await look()).findings)).toEqual([]);
  });

  it('must not use names that its copy needs', async () => {
    await own(
      'CREATE TABLE public.odd (_version int PRIMARY KEY, _op int); CREATE TABLE public.odder (a int PRIMARY KEY, _row_exists int)',
    );
    const { findings } = await look();
    expect(findings.filter(({ code }) => code === 'column_name').map(({ table }) => table)).toEqual([
      'public.odd',
      'public.odder',
    ]);
    expect(blockers((await look({ tables: ['odder'], exclude_columns: { odder: ['_row_exists'] } })).findings)).toEqual(
      [],
    );
    const log = await look({ tables: ['odd'], mode: 'both' });
    expect(only(log.findings, 'column_name').detail).toContain('_version, _op');
  });

  it('keeps its key, whatever is excluded, and typing errors expose nothing', async () => {
    await own(
      'CREATE TABLE public.accounts (id int PRIMARY KEY, password_hash text); CREATE TABLE public.other (id int PRIMARY KEY)',
    );
    const ask = (exclude_columns: Record<string, string[]>) => look({ tables: ['accounts'], exclude_columns });
    expect(codes(blockers((await ask({ accounts: ['id'] })).findings))).toEqual(['exclude_key']);
    expect(codes(blockers((await ask({ accounts: ['passwd_hash'] })).findings))).toEqual(['exclude_unknown']);
    expect(only((await ask({ acounts: ['password_hash'] })).findings, 'exclude_unknown').remedy).toContain('accounts');
    const right = await ask({ accounts: ['password_hash'], other: ['anything'] });
    expect(blockers(right.findings)).toEqual([]);
    expect(right.tables[0]!.columns.map(({ name }) => name)).toEqual(['id']);
  });

  it('has an asset id of its own', async () => {
    await own(
      'CREATE SCHEMA sales; CREATE TABLE sales.orders (id int PRIMARY KEY); CREATE TABLE public.sales_orders (id int PRIMARY KEY)',
    );
    await own('CREATE TABLE public.a (id int PRIMARY KEY); CREATE TABLE public.a_log (id int PRIMARY KEY)');
    const tables = ['*', 'sales.*'];
    const finding = only((await look({ tables })).findings, 'asset_id_taken');
    expect(finding.remedy).toContain('{ asset_ids: { "sales.orders": main_sales_orders_2 } }');
    const options = { asset_ids: { 'sales.orders': 'main_sales_orders_2' } };
    const cured = await look({ tables, options });
    expect(blockers(cured.findings)).toEqual([]);
    expect(cured.tables.map(({ asset_id }) => asset_id)).toContain('main_sales_orders_2');
    expect(only((await look({ tables, options, mode: 'log' })).findings, 'asset_id_taken').detail).toContain(
      'main_a_log',
    );
    const unknown = await look({ tables, options: { asset_ids: { nope: 'main_x' } } });
    expect(codes(blockers(unknown.findings))).toContain('asset_id_unknown');
  });

  it('has an asset id that ClickHouse can name files by', async () => {
    const long = 'ü'.repeat(31);
    await own(`CREATE SCHEMA "${long}"; CREATE TABLE "${long}"."${long}" (id int PRIMARY KEY)`);
    expect(codes(blockers((await look({ tables: [`${long}.*`] })).findings))).toEqual(['asset_id_long']);
    const options = { asset_ids: { [`${long}.${long}`]: 'main_short' } };
    expect(blockers((await look({ tables: [`${long}.*`], options })).findings)).toEqual([]);
  });

  it('may hold what is worth a remark', async () => {
    await own(`CREATE TABLE public.parent (id real PRIMARY KEY, price numeric(10,2), born date, seen timestamptz, tags text[] NOT NULL);
      CREATE TABLE public.child (PRIMARY KEY (id)) INHERITS (public.parent)`);
    const { findings } = await look({ tables: ['parent'] });
    expect(blockers(findings)).toEqual([]);
    expect(only(findings, 'value_ranges').detail).toContain(
      'NaN and infinities (price); dates outside of 1900 to 2299',
    );
    expect(codes(findings)).toContain('float_key');
    expect(codes(findings)).toContain('inheritance');
  });
});

describe('many tables', () => {
  it('make a bounded answer', async () => {
    await admin(
      `DO $$ BEGIN FOR i IN 1..500 LOOP EXECUTE format('CREATE TABLE public.t%s (id int PRIMARY KEY)', i); END LOOP; END $$`,
    );
    const { findings } = await look();
    expect(findings).toHaveLength(201);
    expect(findings.at(-1)).toMatchObject({ code: 'more_findings', blocking: true });
    expect(JSON.stringify(findings).length).toBeLessThan(100_000);
  });
});

describe('options', () => {
  it.each([
    [{ publicaton: 'x' }, 'publication, slot, asset_ids'],
    [{ slot: 'Bad-Slot' }, 'a-z, 0-9 and _'],
    [{ publication: '' }, '1 to 63 bytes'],
    [{ asset_ids: ['x'] }, 'asset_ids: {'],
    [{ asset_ids: { a: '_batches' } }, 'begins with main_'],
    [{ asset_ids: { 'a*': 'x' } }, 'one table'],
  ])('%j is refused', async (options, remedy) => {
    const refused = await look({ options }).catch((error: unknown) => error as SluiceError);
    expect(refused).toBeInstanceOf(SluiceError);
    expect(refused).toMatchObject({
      kind: 'configuration',
      place: { source: 'main' },
      remedy: expect.stringContaining(remedy),
    });
  });
});

describe('a connection string that does not fit', () => {
  const attempt = (connectionString: string) =>
    connect({ connectionString, applicationName: 'test' }).then(
      () => expect.fail('it connected'),
      (error: SluiceError) => error,
    );

  it('gets an error that names the place, never the password', async () => {
    const at = `127.0.0.1:${server.port}`;
    const cases: [string, RegExp, string][] = [
      [`postgresql://capture:hunter2@${at}/postgres`, /password authentication failed/, 'source_refused'],
      [`postgresql://capture:secret@${at}/nowhere`, /database "nowhere" does not exist/, 'source_refused'],
      [`postgresql://capture:hunter2@no-such-host.invalid/x`, /no-such-host\.invalid/, 'source_unreachable'],
      [`postgresql://capture:hunter2@127.0.0.1:1/x`, /ECONNREFUSED 127\.0\.0\.1:1/, 'source_unreachable'],
      [`postgresql://capture:secret@${at}/postgres?sslmode=require`, /SSL/, 'source_unreachable'],
    ];
    for (const [url, reason, kind] of cases) {
      const error = await attempt(url);
      expect(error.kind, url).toBe(kind);
      expect(error.message).toMatch(reason);
      expect(JSON.stringify([error.message, error.remedy, error.place])).not.toContain('hunter2');
    }
  });
});
