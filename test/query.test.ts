/** Statements of people on the real engine: what they may not reach, with a file that nobody may read, and mistakes. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openControl } from '../api/control/control.ts';
import { runQuery } from '../api/control/query.ts';
import { askedAfter } from '../api/control/statement.ts';
import { problemOf } from '../api/problems.ts';
import { quickest } from '../bench/measure/quickest.ts';
import { SluiceError } from '../model/errors.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { readSettings } from '../workers/settings.ts';

const secret = 'CANARY_93417';
const encoded = 'Q0FOQVJZXzkz';
let parts: StartedParts<'clickhouse'>;
let control: ReturnType<typeof openControl>;
let folder: string;
let canary: string;

beforeAll(async () => {
  parts = await startParts(['clickhouse']);
  control = openControl({ ...readSettings(), clickhouseUrl: parts.clickhouse.url });
  folder = await mkdtemp(path.join(tmpdir(), 'sluice-canary-'));
  canary = path.join(folder, 'secret.key');
  await writeFile(canary, secret);
});

afterAll(async () => {
  await control?.[Symbol.asyncDispose]();
  await parts?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** What POST /query answers: status and all text. */
async function ask(sql: string): Promise<{ status: number; text: string; remedy?: string }> {
  try {
    return { status: 200, text: JSON.stringify(await runQuery(control, { sql })) };
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    const problem = problemOf(error);
    return { status: problem.status, text: JSON.stringify(problem), remedy: problem.remedy };
  }
}

/** Forged trees, and what is read in place of EXPLAIN where a SELECT is understood though none is written. */
const hidden = () => {
  const file = `file('${canary}')`;
  const forged = `(SELECT arrayJoin(['SelectWithUnionQuery (children 1)', concat(' TableIdentifier a.', base64Encode(${file}))]) AS EXPLAIN)`;
  const spoken = `toInt64(${file})`;
  return [
    `FROM ${forged}`,
    `from ${forged}`,
    `FrOm\n${forged}`,
    `/* a */ FROM ${forged}`,
    `-- a\nFROM ${forged}`,
    `#! a\nFROM ${forged}`,
    `/* SELECT */FROM ${forged} -- SELECT`,
    `\u00a0FROM ${forged}`,
    `\u2003\ufeffFROM\u3000${forged}`,
    `(FROM ${forged})`,
    `FROM ${forged} SELECT EXPLAIN`,
    `FROM ${forged} AS x WHERE 1`,
    `, ${file} FROM ${forged}`,
    `, optimize = 1 SELECT ${spoken}`,
    `optimize = 1 SELECT ${spoken}`,
    `WHERE ${spoken} = (SELECT 1 AS EXPLAIN)`,
    `UNION ALL SELECT ${file}`,
    `LIMIT ${spoken}`,
    `ORDER BY ${spoken}`,
    `WITH TOTALS HAVING throwIf((${file} AS EXPLAIN) != '', EXPLAIN)`,
    `WITH ${file} AS EXPLAIN SELECT EXPLAIN`,
    `WITH a AS (SELECT ${file} AS EXPLAIN) FROM a`,
    `WITH a AS ${forged} FROM a SELECT *`,
    `VALUES ('a String', ${file})`,
    `SELECT * FROM VALUES('a String', (${file}))`,
    `${spoken}`,
    `(${spoken})`,
    `EXPLAIN FROM ${forged}`,
    `EXPLAIN AST FROM ${forged}`,
    `EXPLAIN AST optimize = 1 SELECT ${spoken}`,
    `EXPLAIN SYNTAX SELECT ${spoken}`,
    `(EXPLAIN SELECT ${spoken})`,
    `SELECT * FROM (EXPLAIN SELECT ${spoken})`,
    `DESCRIBE (SELECT ${spoken})`,
    `EXISTS(SELECT ${spoken})`,
    `SELECT 1 FORMAT TSV INTO OUTFILE '${folder}/out'`,
    `SELECT 1 INTO/**/OUTFILE '${folder}/out' FORMAT TSV`,
    `SELECT 1 INTO OUTFILE '${folder}/out'`,
    `SELECT 1 SETTINGS max_threads = 2 SETTINGS max_threads = 3 INTO OUTFILE '${folder}/out'`,
  ];
};

/** Expressions that the tree of a statement does not show. */
const unseen = () => {
  const file = `file('${canary}')`;
  const names = `(SELECT '${canary}' AS x)`;
  return [
    `SHOW TABLES WHERE toInt64(${file}) = 1`,
    `SHOW TABLES LIMIT toInt64(${file})`,
    `SHOW/**/TABLES WHERE toInt64(${file}) = 1`,
    `show tables like '\\'' where toInt64(${file}) = '1'`,
    `SHOW DATABASES WHERE toInt64(${file}) = 1`,
    `SHOW COLUMNS FROM one FROM system WHERE toInt64(${file}) = 1`,
    `SHOW INDEXES FROM one FROM system WHERE toInt64(${file}) = 1`,
    'SHOW TABLES WHERE name IN system.users',
    `SELECT * APPLY(file) FROM ${names}`,
    `SELECT * APPLY file FROM ${names}`,
    `SELECT * EXCEPT (y) APPLY(a -> file(a)) FROM (SELECT '${canary}' AS x, 1 AS y)`,
    `SELECT t.* APPLY(file) FROM ${names} AS t`,
    `SELECT COLUMNS('x') APPLY toString APPLY file FROM ${names}`,
    `SELECT COLUMNS(x) APPLY(file) FROM ${names}`,
    `SELECT t.COLUMNS('x') APPLY(file) FROM ${names} AS t`,
    `SELECT * REPLACE (file(x) AS x) FROM ${names}`,
  ];
};

/** What is known as harmful wherever it stands. */
const known = () => [
  `SELECT file('${canary}')`,
  `SELECT \`file\`('${canary}')`,
  `SELECT * FROM file('${canary}', LineAsString)`,
  `SELECT * FROM '${canary}'`,
  `SELECT * FROM default."${canary}"`,
  `SELECT 1 IN file('${canary}', LineAsString)`,
  `SELECT 1 LIMIT length(file('${canary}'))`,
  `SELECT sum(1) OVER (PARTITION BY file('${canary}'))`,
  `SELECT 1 AS n ORDER BY n WITH FILL FROM 0 TO 3 INTERPOLATE (n AS file('${canary}'))`,
  `SELECT * FROM url('file://${canary}', LineAsString)`,
  `SELECT * FROM s3('http://127.0.0.1:1/a', LineAsString)`,
  `SELECT * FROM remote('127.0.0.1', system.one)`,
  `SELECT * FROM executable('cat ${canary}', LineAsString, 'a String')`,
  `SELECT * FROM dictionary('secrets')`,
  `SELECT dictGet('secrets', 'a', 1)`,
  'SELECT sleep(3)',
  'SELECT sleepEachRow(1) FROM numbers(3)',
  "SELECT getServerSetting('interserver_http_host')",
  'SELECT * FROM system.users',
  'SELECT * FROM system.query_log',
  'SELECT * FROM system.named_collections',
  'SELECT 1 WHERE 1 IN system.users',
  `CREATE TABLE sluice.x ENGINE = Memory AS SELECT file('${canary}')`,
  `INSERT INTO FUNCTION file('${folder}/out') SELECT 1`,
  `SELECT 1; SELECT file('${canary}')`,
  `SELECT 1\0 file('${canary}')`,
];

describe('before there is any source', () => {
  it('a statement is answered', async () => {
    expect(await ask('SELECT 1 AS x')).toEqual({ status: 200, text: expect.stringContaining('"rows":[[1]]') });
  });
});

describe('a statement', () => {
  it.each([
    ['that would be read as another', hidden],
    ['with expressions that its tree does not show', unseen],
    ['that reaches out', known],
  ])('%s is refused at once, and reads no file', async (_name, attacks) => {
    for (const sql of attacks()) {
      const answers: Awaited<ReturnType<typeof ask>>[] = [];
      const took = await quickest(3, 2_000, async () => answers.push(await ask(sql)));
      expect(took, sql).toBeLessThan(2_000);
      const { status, text, remedy } = answers[0]!;
      expect([sql, status, text]).toEqual([sql, 422, expect.any(String)]);
      for (const trace of [secret, Buffer.from(secret).toString('base64').slice(0, 12)])
        expect(text).not.toContain(trace);
      expect(text.length, sql).toBeLessThan(1_500);
      expect(remedy, sql).toMatch(/./);
    }
    expect(await readdir(folder)).toEqual(['secret.key']);
  });

  it('is never carried out when it is asked after, whatever it begins with', async () => {
    // A comma would go on with the settings of EXPLAIN: no statement begins with one.
    for (const sql of hidden().filter((one) => !one.startsWith(','))) {
      const asked = control.clickhouse.text(askedAfter(sql), { settings: { readonly: 1 } });
      const answer = await asked.catch((error: unknown) => String(error));
      expect(answer, sql).not.toContain(secret);
      expect(answer, sql).not.toContain(encoded);
    }
  });

  it('that only reads is answered, also behind comments and in parentheses', async () => {
    for (const sql of [
      'SELECT 1',
      'select 1 -- one',
      '-- one\n/* two */ SELECT 1;',
      '(SELECT 1) UNION ALL (SELECT 2)',
      '((SELECT 1))',
      'WITH 1 AS x SELECT x',
      'WITH a AS (SELECT 1 AS x) FROM a SELECT x',
      'SELECT * EXCEPT (y) FROM (SELECT 1 AS x, 2 AS y)',
      'SELECT * FROM values(1, 2)',
      'SELECT * FROM view(SELECT 1)',
      'SELECT * FROM generateSeries(1, 3)',
      "SELECT format('{}', 'a')",
      "SHOW TABLES LIKE 'a\\_b%'",
      'SHOW TABLES FROM `system`',
      'DESCRIBE system.one',
      'EXPLAIN PIPELINE SELECT 1',
    ]) {
      const { status, text } = await ask(sql);
      expect([sql, status, text]).toEqual([sql, 200, expect.any(String)]);
    }
  });

  it.each([
    ['SELECT 1 SETTINGS readonly = 0', /SETTINGS/],
    ['SELECT 1 SETTINGS max_threads = 1', /SETTINGS/],
    [`SELECT * FROM format(JSONEachRow, '{"a":1}')`, /numbers\(\)/],
    ['SELECT length(range(300000000))', /1 GiB/],
    ['SELECT * FROM (SELECT 1 AS a) WHERE b = 1', /Correct/],
  ])('that is a mistake is no outage: %s', async (sql, fitting) => {
    expect(await ask(sql)).toEqual({ status: 422, text: expect.any(String), remedy: expect.stringMatching(fitting) });
  });

  it('is refused in few words that are none of a result', async () => {
    const { text } = await ask(`SELECT * FROM other.\`${'x'.repeat(10_000)} <b>\``);
    expect(text).toContain('of that name');
    expect(text.length).toBeLessThan(1_000);
  });
});
