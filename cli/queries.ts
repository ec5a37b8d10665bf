/** `sluice query`, `sluice verify` and `sluice sql`. */
import type { Command } from 'commander';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import type { DifferingKey } from '../activities/check/verify.ts';
import { getCut } from '../api/control/cuts.ts';
import { runQuery } from '../api/control/query.ts';
import {
  type CutAnswer,
  type QueryAnswer,
  type QueryBody,
  queryBody,
  type VerifyAnswer,
} from '../api/control/shapes.ts';
import { verifyNow } from '../api/control/verify.ts';
import { SluiceError } from '../model/errors.ts';
import { verifyWorkflowId } from '../model/messages.ts';
import { readEndpoints, readSettings } from '../workers/settings.ts';
import { print, printJson, table, wantsJson, withControl } from './print.ts';
import { withProgress } from './progress.ts';

type Done = (status: number) => void;

/** The demo’s source, by contract. */
const demoSource = 'postgres_main';

export function addQueries(program: Command, done: Done): void {
  program
    .command('query <sql>')
    .description('one reading statement on the copies in ClickHouse (10,000 rows, 10 s)')
    .option('--wait-for <position>', 'answer when the copies hold all that the source had: now, or at a position')
    .option('--source <id>', 'whose position it is; default: the source of the tables in the statement')
    .option('--timeout <seconds>', 'how long to wait at most; default 30', Number)
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `\nExamples:\n  $ npx sluice query --wait-for now 'SELECT count() FROM postgres_main_accounts'\n  $ npx sluice query 'SELECT currency, sum(amount) FROM postgres_main_transactions GROUP BY currency'\n  $ npx sluice query 'SHOW TABLES'`,
    )
    .action(async (sql: string, options: WaitFlags, command: Command) => {
      const answer = await withControl((control) => runQuery(control, queryOf(sql, options)));
      if (wantsJson(command)) printJson(answer);
      else print(answerText(answer));
      done(0);
    });
  program
    .command('cuts <source>')
    .description('up to which commit the copies of a source are complete')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  $ npx sluice cuts postgres_main')
    .action(async (source: string, _options: object, command: Command) => {
      const answer = await withControl((control) => getCut(control, source));
      if (wantsJson(command)) printJson(answer);
      else print(cutText(answer));
      done(0);
    });
  program
    .command('verify <source> [table]')
    .description('compare source and copy, while both move; exit status 0 identical, 1 not')
    .option('--repair', 'read rows that differ again from the source')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ npx sluice verify postgres_main\n  $ npx sluice verify postgres_main transactions --json',
    )
    .action(async (source: string, name: string | undefined, options: { repair?: boolean }, command: Command) => {
      const what = { ...(name === undefined ? {} : { table: name }), ...options };
      const answer = await withControl((control) =>
        withProgress(control, source, verifyWorkflowId(source), () => verifyNow(control, source, what)),
      );
      if (wantsJson(command)) printJson(answer);
      else print(verifyText(answer));
      done(answer.identical ? 0 : 1);
    });
  program
    .command('sql <source> <statement>')
    .description('run SQL on the demo’s own PostgreSQL, to see changes arrive (demo source only)')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `\nExample:\n  $ npx sluice sql postgres_main "UPDATE accounts SET status = 'closed' WHERE id = 1"`,
    )
    .action(async (source: string, statement: string, _options: object, command: Command) => {
      const answer = await runOnDemo(source, statement);
      if (wantsJson(command)) printJson(answer);
      else
        print(answer.columns.length > 0 ? table(answer.columns, answer.rows) : `${answer.command} ${answer.row_count}`);
      done(0);
    });
}

interface WaitFlags {
  waitFor?: string;
  source?: string;
  timeout?: number;
}

/** The request that the flags mean. Errors: `configuration`. */
function queryOf(sql: string, { waitFor, source, timeout }: WaitFlags): QueryBody {
  const wish = {
    sql,
    ...(waitFor ? { wait_for: waitFor } : {}),
    ...(source ? { source } : {}),
    ...(timeout === undefined ? {} : { timeout }),
  };
  const read = queryBody.safeParse(wish);
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  throw new SluiceError('configuration', `${issue?.path.join('.')}: ${issue?.message}`, 'See npx sluice query --help.');
}

/** A cut as people read it. */
function cutText(cut: CutAnswer): string {
  const rows = cut.tables.map((one) => [
    one.table,
    one.status,
    one.complete ? 'complete' : 'NOT complete',
    one.position,
  ]);
  const where =
    cut.position === null
      ? 'there is no position up to which all is complete'
      : `all is complete up to ${cut.position}`;
  const when = cut.committed_at === null ? '' : `, last commit ${cut.committed_at}`;
  return `${table(['table', 'state', 'copy', 'up to'], rows)}\n${cut.source}: ${where}${when}`;
}

function answerText(answer: QueryAnswer): string {
  const names = answer.columns.map((column) => column.name);
  const rows = answer.rows.map((row) => row.map(show));
  const count = `${answer.row_count} ${answer.row_count === 1 ? 'row' : 'rows'}${answer.truncated ? ' (there are more: cut at 10,000)' : ''}`;
  return `${table(names, rows)}\n(${count})`;
}

function show(value: unknown): string | null {
  if (value === null || value === undefined) return null;
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** A comparison as people read it: one line a table, then the keys that differ. */
export function verifyText(answer: VerifyAnswer): string {
  const rows = answer.tables.map((one) => [
    one.asset_id, one.identical ? 'identical' : 'DIFFERENT', one.source_rows, one.copy_rows, one.missing, one.extra, one.different, one.rejected,
  ]); // biome-ignore format: one line a row
  const keys = answer.tables.flatMap((one) => one.keys.map((key) => `  ${one.asset_id} ${keyText(key)}`));
  const errors = answer.tables.flatMap((one) => {
    const { reason, remedy } = (one.error ?? {}) as { reason?: string; remedy?: string };
    return reason ? [`! ${one.asset_id}: ${reason}. ${remedy ?? ''}`] : [];
  });
  const mended = answer.tables.flatMap(mendedText);
  const verdict = answer.identical ? 'identical' : 'NOT identical';
  return [
    table(['copy of', 'verdict', 'source', 'copy', 'missing', 'extra', 'different', 'rejected'], rows),
    ...errors,
    ...mended,
    ...(keys.length > 0 ? ['keys that differ (at most 100 a table):', ...keys] : []),
    `${answer.source}: ${verdict}`,
  ].join('\n');
}

/** What was done about differences. */
function mendedText(one: VerifyAnswer['tables'][number]): string[] {
  const { repaired, unrepaired, resynced } = one as { repaired?: number; unrepaired?: string; resynced?: boolean };
  return [
    ...(repaired ? [`${one.asset_id}: ${repaired} repaired`] : []),
    ...(unrepaired ? [`! ${one.asset_id}: not all could be repaired: ${unrepaired}`] : []),
    ...(resynced ? [`! ${one.asset_id}: its rows cannot be repaired one by one, so it is copied anew`] : []),
  ];
}

function keyText(entry: unknown): string {
  const { problem, key, repaired, source_rows, copy_rows } = (entry ?? {}) as Partial<DifferingKey>;
  // Rows without a key are counted.
  const counts = source_rows === undefined ? '' : ` (${source_rows} in the source, ${copy_rows} in the copy)`;
  return problem ? `${problem} ${JSON.stringify(key)}${counts}${repaired ? ' (repaired)' : ''}` : JSON.stringify(entry);
}

async function runOnDemo(source: string, statement: string) {
  const endpoints = readEndpoints(readSettings().home);
  if (source !== demoSource || !endpoints?.postgres || process.env.DATABASE_URL) {
    const remedy = `Start the demo (\`npm start\`) and use ${demoSource}; for other databases use their own client.`;
    throw new SluiceError('configuration', 'only the demo’s own PostgreSQL can be written to from here', remedy, {
      source,
    });
  }
  const options = { connectionString: endpoints.postgres, applicationName: 'sluice sql' };
  return await withConnection(options, async (client) => {
    await client.query('SET search_path = public');
    const result = await client
      .query({ text: statement, rowMode: 'array' })
      .catch((error: Error & { code?: string }) => {
        throw new SluiceError(
          'configuration',
          `PostgreSQL: ${error.message} (${error.code})`,
          'Correct the statement.',
          {},
          error,
        );
      });
    const last = Array.isArray(result) ? result.at(-1) : result;
    const columns = (last.fields ?? []).map((field: { name: string }) => field.name) as string[];
    const rows = (last.rows as unknown[][]).map((row) => row.map(show));
    return { command: String(last.command), row_count: last.rowCount ?? 0, columns, rows };
  });
}
