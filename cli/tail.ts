/** `sluice tail`: what happens to a source or deployment, as it happens. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { listAudit } from '../api/control/audit.ts';
import type { Control } from '../api/control/control.ts';
import { type FeedEvent, listen } from '../api/control/events.ts';
import type { AuditAnswer } from '../api/control/shapes.ts';
import { SluiceError } from '../model/errors.ts';
import { print, wantsJson, withControl } from './print.ts';

interface TailOptions {
  limit: string;
  follow: boolean;
}

export function addTail(program: Command, done: (status: number) => void): void {
  program
    .command('tail <source>')
    .description('the last batches of a source or deployment, then what happens, until Ctrl-C')
    .option('--limit <batches>', 'so many of before', '10')
    .option('--no-follow', 'only what was before')
    .option('--json', 'print JSON, an event a line')
    .addHelpText(
      'after',
      '\nExamples:\n  $ npx sluice tail postgres_main\n  $ npx sluice tail assets --limit 50 --no-follow',
    )
    .action(async (source: string, options: TailOptions, command: Command) => {
      const limit = readLimit(options.limit);
      const show = wantsJson(command)
        ? (event: Shown) => print(JSON.stringify(event))
        : (event: Shown) => print(line(event));
      await withControl((control) => tail(control, source, limit, options.follow, show));
      done(0);
    });
}

type Shown = Pick<FeedEvent, 'event' | 'data'>;

async function tail(
  control: Control,
  source: string,
  limit: number,
  follow: boolean,
  show: (event: Shown) => void,
): Promise<void> {
  // First, so that nothing falls between: what comes twice is told once.
  const told = new Set<string>();
  const early: FeedEvent[] = [];
  let hear = (event: FeedEvent): void => void early.push(event);
  const end = follow
    ? listen(
        control,
        (event) => (event.about === source || event.about === '') && hear(event),
        new Date().toISOString(),
      )
    : () => {};
  const past = limit === 0 ? [] : (await listAudit(control, { source, limit })).items;
  for (const record of past.reverse()) {
    told.add(record.id + record.recorded_at);
    show({ event: 'batch', data: dataOf(record) });
  }
  hear = (event) => {
    const key = `${event.data.id}${event.data.recorded_at}`;
    if (event.event === 'batch' && told.has(key)) return;
    if (event.event === 'batch') told.add(key);
    show(event);
  };
  for (const event of early) hear(event);
  if (!follow) return;
  const stopped = new Promise((resolve) => process.once('SIGINT', resolve).once('SIGTERM', resolve));
  const waiting = new AbortController();
  void stopped.then(() => waiting.abort());
  // Looks do not keep a process alive, and this one shall live.
  while (!waiting.signal.aborted) await sleep(60_000, undefined, { signal: waiting.signal }).catch(() => {});
  end();
}

function dataOf(record: AuditAnswer['items'][number]): Record<string, unknown> {
  const rows = Object.values(record.assets).reduce((sum, effects) => sum + effects.written, 0);
  const { id, source, kind, position_to, changes, committed_last, recorded_at, assets } = record;
  return { id, kind, position_to, changes, committed_last, rows, recorded_at, source, assets };
}

function readLimit(text: string): number {
  const limit = Number(text);
  if (Number.isSafeInteger(limit) && limit >= 0 && limit <= 1000) return limit;
  throw new SluiceError('configuration', `--limit ${text} is not a number from 0 to 1000`, 'Write e.g. --limit 20.');
}

/** An event for people. */
export function line({ event, data }: Shown): string {
  const time = String(data.recorded_at ?? new Date().toISOString()).slice(11, 23);
  if (event === 'batch') return `${time}  ${String(data.kind).padEnd(9)} ${data.position_to}  ${batchText(data)}`;
  if (event === 'source') return `${time}  source    ${data.id} is ${data.status}${errorText(data.last_error)}`;
  if (event === 'run') return `${time}  run       ${data.deployment} ${data.nominal ?? ''} ${data.status}`;
  if (event === 'alarm') return `${time}  alarm     ${data.state}: ${data.reason}. ${data.remedy}`;
  return `${time}  ${event.padEnd(9)} ${data.reason ?? ''} ${data.remedy ?? ''}`;
}

function errorText(error: unknown): string {
  const { reason, remedy } = (error ?? {}) as { reason?: string; remedy?: string };
  return reason === undefined ? '' : `: ${reason}. ${remedy}`;
}

type Counts = Partial<Record<'inserts' | 'updates' | 'deletes' | 'truncates' | 'written' | 'rejected', number>>;

function batchText({ assets }: Record<string, unknown>): string {
  const parts = Object.entries((assets ?? {}) as Record<string, Counts>).map(([asset, counts]) => {
    const said = [
      ['+', counts.inserts],
      ['~', counts.updates],
      ['-', counts.deletes],
      ['truncated ', counts.truncates],
      ['rejected ', counts.rejected],
    ].flatMap(([sign, count]) => (count ? `${sign}${count}` : []));
    return `${asset} ${said.join(' ') || `${counts.written ?? 0} rows`}`;
  });
  return parts.join(', ');
}
