/** Control actions: each is recorded with who asked for it and what came of it. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Action, type ActionPlace, readActions, writeActions } from '../../activities/load/actions.ts';
import { createOwnTables } from '../../activities/load/batches.ts';
import { redact } from '../../activities/secrets.ts';
import { asSluiceError, SluiceError } from '../../model/errors.ts';
import type { ActionsAnswer, ActionsQuery } from './action_shapes.ts';
import type { Caller } from './caller.ts';
import type { Control } from './control.ts';
import { noTableYet, shared } from './figures.ts';
import { ownTables } from './own_tables.ts';
import { peoplesMessages } from './peoples_messages.ts';

/** Records of a process that could not be written yet: at most so many. */
const backlogs = new WeakMap<Caller, Action[]>();
const mostKept = 1_000;

/**
 * Does what somebody asks for, and records it. `input` must hold nothing secret. That it could not be recorded is no reason not to
 * do it: it is kept for the next time, and Temporal's history has it too.
 */
export async function acted<Answer>(
  control: Control,
  what: { action: string; target: string; input?: Record<string, unknown> },
  work: () => Promise<Answer>,
): Promise<Answer> {
  const begun = performance.now();
  const { caller } = control;
  const { action, target, input = {} } = what;
  const at = new Date().toISOString();
  const record = async (outcome: Action['outcome'], reason: string) => {
    const milliseconds = Math.round(performance.now() - begun);
    await keep(control, { id: randomUUID(), at, ...caller, action, target, input, outcome, reason, milliseconds });
  };
  try {
    const answer = await work();
    await record('done', '');
    return answer;
  } catch (error) {
    await record('failed', redact(asSluiceError(error).message).slice(0, 1000));
    throw error;
  }
}

/** Nobody waits longer for a record than this (ms). */
const recordPatience = 2_000;

async function keep(control: Control, action: Action): Promise<void> {
  const backlog = [...(backlogs.get(control.caller) ?? []), action].slice(-mostKept);
  backlogs.set(control.caller, backlog);
  const written = writeBacklog(control, backlog).catch(() => {});
  await Promise.race([written, sleep(recordPatience, undefined, { ref: false })]);
}

async function writeBacklog(control: Control, backlog: Action[]): Promise<void> {
  await ownTables(control, async (clickhouse) => {
    try {
      await writeActions(clickhouse, backlog);
    } catch (error) {
      if (!noTableYet(error)) throw error;
      await createOwnTables(clickhouse);
      await writeActions(clickhouse, backlog);
    }
  });
  const later = (backlogs.get(control.caller) ?? []).filter((one) => !backlog.includes(one));
  backlogs.set(control.caller, later);
}

/**
 * What people did, the newest first: by REST and CLI as it was recorded, and by Temporal's UI or CLI as the histories that it
 * keeps tell. Errors: `configuration` for a cursor that is none.
 */
export async function listActions(control: Control, wanted: ActionsQuery): Promise<ActionsAnswer> {
  const { limit = 100, cursor, ...which } = wanted;
  const before = cursor === undefined ? undefined : readCursor(cursor);
  const [recorded, told] = await Promise.all([
    recordedActions(control, { ...which, before, limit: limit + 1 }),
    shared(control, 'messages of people', () => peoplesMessages(control)),
  ]);
  const ours = await matching(control, told);
  const others = told.filter((one) => !ours.has(one.id) && isWanted(one, { ...which, before }));
  const all = [...recorded, ...others].sort((a, b) => (isBefore([a.at, a.id], [b.at, b.id]) ? 1 : -1));
  const items = all.slice(0, limit);
  const last = items.at(-1);
  return { items, next_cursor: all.length > limit && last ? cursorAt([last.at, last.id]) : null };
}

async function recordedActions(control: Control, wanted: Parameters<typeof readActions>[1]): Promise<Action[]> {
  try {
    return await readActions(control.clickhouse, wanted);
  } catch (error) {
    if (noTableYet(error)) return [];
    throw error;
  }
}

/** Ids of messages that are recorded as an action already: REST and CLI send messages too. */
async function matching(control: Control, told: Action[]): Promise<Set<string>> {
  const sent = told.filter((one) => one.via === 'rest' || one.via === 'cli');
  const oldest = sent.map((one) => one.at).sort()[0];
  if (oldest === undefined) return new Set();
  const from = new Date(Date.parse(oldest) - longestAction).toISOString();
  const recorded = await recordedActions(control, { from, limit: 100_000 });
  const alike = new Map<string, Action[]>();
  for (const one of recorded) alike.set(kindOf(one), [...(alike.get(kindOf(one)) ?? []), one]);
  const isOne = (message: Action) =>
    alike.get(kindOf(message))?.some(({ at, milliseconds }) => {
      const after = Date.parse(message.at) - Date.parse(at);
      return after >= -slack && after <= milliseconds + slack;
    });
  return new Set(sent.filter(isOne).map((one) => one.id));
}

function kindOf({ target, action }: Action): string {
  return JSON.stringify([target, action]);
}

/** Milliseconds; clocks of the server and ours may differ a little. */
const longestAction = 60_000;
const slack = 2_000;

function isWanted(
  one: Action,
  { target, from, to, before }: Pick<ActionsQuery, 'target' | 'from' | 'to'> & { before?: ActionPlace },
): boolean {
  const at = Date.parse(one.at);
  return (
    (target === undefined || one.target === target) &&
    (from === undefined || at >= Date.parse(from)) &&
    (to === undefined || at < Date.parse(to)) &&
    (before === undefined || isBefore([one.at, one.id], before))
  );
}

function isBefore(a: ActionPlace, b: ActionPlace): boolean {
  return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]);
}

function cursorAt(place: ActionPlace): string {
  return Buffer.from(JSON.stringify(place)).toString('base64url');
}

function readCursor(cursor: string): ActionPlace {
  try {
    const [at, id] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as ActionPlace;
    if (typeof id === 'string' && !Number.isNaN(Date.parse(at))) return [at, id];
  } catch {}
  throw new SluiceError('configuration', 'the cursor is none of this list', 'Take next_cursor of the page before.');
}
