/** `sluice sources …`. */
import { type Command, InvalidArgumentError } from 'commander';
import type { Control } from '../api/control/control.ts';
import { type ConnectBody, connectBody, type SourceAnswer } from '../api/control/shapes.ts';
import { connectSource, deleteSource, listSources, orderSource, type SourceOrder } from '../api/control/sources.ts';
import { SluiceError } from '../model/errors.ts';
import { schemaPolicies } from '../model/source.ts';
import { print, printJson, table, wantsJson, withControl } from './print.ts';
import { sourceText } from './status.ts';

type Done = (status: number) => void;

export function addSources(program: Command, done: Done): void {
  const sources = program.command('sources').description('databases that are captured').helpCommand(false);
  sources
    .command('list')
    .description('all sources')
    .option('--json', 'print JSON')
    .action(async (_options: object, command: Command) => {
      const answer = await withControl(listSources);
      if (wantsJson(command)) printJson(answer);
      else print(listText(answer));
      done(0);
    });
  addConnect(sources, done);
  addOrders(sources, done);
  sources
    .command('delete <id>')
    .description('remove a source, its slot and its publication; the copies stay unless told otherwise')
    .option('--drop-copies', 'drop its tables in ClickHouse too')
    .option('--force', 'also when the source is out of reach: its slot stays there and keeps its log')
    .option('--json', 'print JSON')
    .action(async (id: string, options: { dropCopies?: boolean; force?: boolean }, command: Command) => {
      const wish = { dropCopies: Boolean(options.dropCopies), force: Boolean(options.force) };
      await withControl((control) => deleteSource(control, id, wish));
      if (wantsJson(command)) printJson({ id, deleted: true });
      else print(`${id} is removed${wish.dropCopies ? ', with its copies' : '; its copies stay in ClickHouse'}`);
      done(0);
    });
}

function listText(sources: SourceAnswer[]): string {
  if (sources.length === 0) return 'no sources yet. Connect one: npx sluice sources connect --help';
  const rows = sources.map((one) => [
    one.id,
    one.type,
    one.status,
    one.tables.length,
    one.changes_total,
    one.lag_seconds,
    one.last_error?.reason ?? '',
  ]);
  return table(['id', 'type', 'state', 'tables', 'changes', 'lag s', 'last error'], rows);
}

interface ConnectOptions {
  connectionString: string;
  tables?: string[];
  pollInterval?: number;
  excludeColumns?: string[];
  publication?: string;
  slot?: string;
  schemaChanges?: string;
  start?: boolean;
}

function addConnect(sources: Command, done: Done): void {
  sources
    .command('connect <id>')
    .description('look whether a PostgreSQL database can be captured, and remember it')
    .requiredOption(
      '--connection-string <url>',
      'postgresql://… (sealed at once), or ${VARIABLE} of the worker’s environment',
    )
    .option('--tables <names>', 'names, schema.name or globs, comma-separated; default all of public', list)
    .option('--poll-interval <seconds>', 'how long a batch may wait at most', Number)
    .option('--exclude-columns <table.column>', 'columns that are stored nowhere, comma-separated', list)
    .option('--publication <name>', 'default sluice_{id}')
    .option('--slot <name>', 'default sluice_{id}')
    .option('--schema-changes <policy>', `when a table is altered: ${schemaPolicies.join(', ')}; default evolve`)
    .option('--start', 'start at once')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `\nExamples:\n  $ DATABASE_URL=postgresql://… npx sluice sources connect shop --connection-string '\${DATABASE_URL}' --start\n  $ npx sluice sources connect shop --connection-string postgresql://u:p@host/db --tables 'orders,sales.*'`,
    )
    .action(async (id: string, options: ConnectOptions, command: Command) => {
      const body = checkBody(id, options);
      const answer = await withControl((control) => connectAndStart(control, body, Boolean(options.start)));
      if (wantsJson(command)) printJson(answer.source);
      else {
        for (const finding of answer.findings)
          print(`note: ${finding.table ? `${finding.table}: ` : ''}${finding.detail} ${finding.remedy}`);
        print(`${id} is ${answer.created ? 'connected' : 'known already, as it is'}\n\n${sourceText(answer.source)}`);
        if (answer.source.status === 'connected') print(`\nstart it: npx sluice sources start ${id}`);
      }
      done(0);
    });
}

async function connectAndStart(control: Control, body: ConnectBody, start: boolean) {
  const answer = await connectSource(control, body);
  return start ? { ...answer, source: await orderSource(control, body.id, 'start') } : answer;
}

function checkBody(id: string, options: ConnectOptions): ConnectBody {
  const { publication, slot, schemaChanges } = options;
  const result = connectBody.safeParse({
    id,
    type: 'postgresql',
    connection_string: options.connectionString,
    config: {
      ...(options.tables ? { tables: options.tables } : {}),
      ...(options.pollInterval === undefined ? {} : { poll_interval: options.pollInterval }),
      exclude_columns: columnsByTable(options.excludeColumns ?? []),
      options: {
        ...(publication ? { publication } : {}),
        ...(slot ? { slot } : {}),
        ...(schemaChanges ? { schema_changes: schemaChanges } : {}),
      },
    },
  });
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue?.path.at(-1);
  const reason = `${where === undefined ? '' : `${String(where)}: `}${issue?.message ?? ''}`;
  throw new SluiceError('configuration', reason, 'See npx sluice sources connect --help.');
}

/** `accounts.password_hash` or `sales.orders.note`, by table. */
function columnsByTable(names: string[]): Record<string, string[]> {
  const byTable: Record<string, string[]> = {};
  for (const name of names) {
    const dot = name.lastIndexOf('.');
    if (dot < 1)
      throw new SluiceError('configuration', `${name} is not table.column`, 'Write e.g. accounts.password_hash.');
    const key = name.slice(0, dot);
    byTable[key] = [...(byTable[key] ?? []), name.slice(dot + 1)];
  }
  return byTable;
}

const orders: { name: string; order: SourceOrder; tables: '' | '[tables...]' | '<tables...>'; description: string }[] =
  [
    {
      name: 'start',
      order: 'start',
      tables: '[tables...]',
      description: 'start capturing; tables that are named and unknown are added',
    },
    {
      name: 'stop',
      order: 'stop',
      tables: '',
      description: 'stop; slot and position are kept, and the source keeps its log',
    },
    { name: 'pause', order: 'pause', tables: '', description: 'stop, and let `pipeline start` leave it alone' },
    { name: 'resume', order: 'resume', tables: '', description: 'go on where it was paused' },
    {
      name: 'resync',
      order: 'resync',
      tables: '[tables...]',
      description: 'copy tables again from their beginning; none named = all',
    },
    {
      name: 'approve',
      order: 'approveSchema',
      tables: '[tables...]',
      description:
        'agree with changed definitions: tables that wait for it are copied as they are now; none named = all',
    },
    {
      name: 'add-tables',
      order: 'addTables',
      tables: '<tables...>',
      description: 'capture more tables, beside the running stream',
    },
    {
      name: 'remove-tables',
      order: 'removeTables',
      tables: '<tables...>',
      description: 'stop capturing tables; their copies stay',
    },
  ];

function addOrders(sources: Command, done: Done): void {
  for (const { name, order, tables, description } of orders) {
    const command = sources.command(`${name} <id>`).description(description).option('--json', 'print JSON');
    if (tables) command.argument(tables, 'names or schema.name');
    command.action(async (id: string, ...rest: unknown[]) => {
      const named = Array.isArray(rest[0]) && rest[0].length > 0 ? (rest[0] as string[]) : undefined;
      const answer = await withControl((control) => orderSource(control, id, order, named));
      if (wantsJson(command)) printJson(answer);
      else print(sourceText(answer));
      done(0);
    });
  }
}

function list(text: string): string[] {
  const names = text.split(',').map((name) => name.trim());
  if (names.some((name) => name === '')) throw new InvalidArgumentError('names, separated by commas');
  return names;
}
