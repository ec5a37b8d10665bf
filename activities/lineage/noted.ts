/** Activities that note in the index of lineage what they tell, while they run. */
import { Context } from '@temporalio/activity';
import { asSluiceError } from '../../model/errors.ts';
import type { CaptureContext } from '../capture/context.ts';
import { createLineageTables, newestBeginning, writeHappenings } from '../load/lineage_index.ts';
import type { SchemaActivities } from '../schemas/contract.ts';
import { redact } from '../secrets.ts';
import { defineTables } from './define_tables.ts';
import { type Happening, happeningsOf, tellingActivities, tellsAtOnce } from './happenings.ts';

type Activity = (input: never) => Promise<unknown>;

/** The same activities; those that tell something of lineage also write it down. */
export function notingLineage<T extends object>(activities: T, context: CaptureContext): T {
  const notes = new Notes(context);
  const wrapped = Object.entries(activities).map(([name, run]) => {
    return [name, tellingActivities.has(name) ? notes.wrap(name, run as Activity) : run];
  });
  return Object.fromEntries(wrapped) as T;
}

class Notes {
  readonly #context: CaptureContext;
  /** What this process has written, but for what ends or is defined anew: that is written each time. */
  readonly #written = new Set<string>();
  /** The tables that the last lease of each source streamed. */
  readonly #streamed = new Map<string, Happening>();
  #tables: Promise<void> | undefined;

  constructor(context: CaptureContext) {
    this.#context = context;
  }

  wrap(name: string, run: Activity): Activity {
    if (tellsAtOnce.has(name)) {
      return async (input: never) => {
        await this.#tell(name, input, undefined).catch(notNoted);
        return await run(input);
      };
    }
    return async (input: never) => {
      const answer = await run(input);
      const result = name === 'registerTables' ? await this.#define(input, answer) : (answer ?? null);
      await this.#tell(name, input, result);
      return result ?? answer;
    };
  }

  /** What copies are made from was stored: the graphs of those that changed go into the answer, and so into the history. */
  async #define(input: Parameters<SchemaActivities['registerTables']>[0], answer: unknown): Promise<unknown> {
    const clickhouse = await this.#clickhouse();
    const definitions = await defineTables(clickhouse, input.source, input.id);
    return Object.keys(definitions).length > 0 ? { ...(answer as object), definitions } : answer;
  }

  async #tell(name: string, input: unknown, result: unknown): Promise<void> {
    const { workflowExecution, scheduledTimestampMs: at } = Context.current().info;
    const run = { workflow_id: workflowExecution?.workflowId ?? '', run_id: workflowExecution?.runId ?? '' };
    const told = happeningsOf({ name, input, result, at, run });
    const news: Happening[] = [];
    for (const one of told) if (!(await this.#isWritten(one))) news.push(one);
    if (news.length === 0) return;
    await writeHappenings(await this.#clickhouse(), news);
    for (const one of news) {
      if (one.kind === 'begun') this.#written.add(keyOf(one));
      if (one.kind === 'streams') this.#streamed.set(one.owner, one);
    }
    // Definitions of before this was noted are looked at once.
    const [first] = news;
    if (first?.kind === 'begun' && tellsAtOnce.has(name)) await this.#context.tablesDefined(first.owner);
  }

  /** What a lease streams says something new, too, when a table has begun since: perhaps by another worker. */
  async #isWritten(one: Happening): Promise<boolean> {
    if (one.kind !== 'streams') return one.kind === 'begun' && this.#written.has(keyOf(one));
    const last = this.#streamed.get(one.owner);
    if (last?.definition !== one.definition) return false;
    return (await newestBeginning(await this.#clickhouse(), one.owner)) <= last.at;
  }

  async #clickhouse() {
    const clickhouse = this.#context.clickhouse('write');
    this.#tables ??= createLineageTables(clickhouse).catch((error: unknown) => {
      this.#tables = undefined;
      throw error;
    });
    await this.#tables;
    return clickhouse;
  }
}

function keyOf({ owner, asset, mark }: Happening): string {
  return JSON.stringify([owner, asset, mark]);
}

/** A lease must not wait for it; the next one, or a rebuild, makes up for it. */
function notNoted(error: unknown): void {
  Context.current().log.warn('lineage was not noted', { reason: redact(asSluiceError(error).message) });
}
