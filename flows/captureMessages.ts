/** The messages of `captureSource`: what is refused at once, and what each does. */
import { defineQuery, defineUpdate, setHandler } from '@temporalio/workflow';
import { type ConnectAnswer, captureMessages } from '../model/messages.ts';
import type { CaptureStatus, ConnectRequest } from '../model/source.ts';
import { tableName } from '../model/table.ts';
import type { Capture } from './capture.ts';
import { type FlowState, type FlowTable, findTable, newTable, statusOf, waitingTables } from './captureState.ts';
import { rulesChanged } from './catalogRules.ts';
import { askPreflight, blocked, type Connection } from './connect.ts';
import { expectNoInput, readConnectRequest, readRemoval, readTables, stateLimit } from './input.ts';
import { readFailure, refuse } from './refuse.ts';
import { snapshotProgress } from './snapshotTable.ts';

interface Tables {
  tables?: string[];
}

interface Removal {
  drop_copies?: boolean;
  force?: boolean;
}

export const connect = defineUpdate<ConnectAnswer, [ConnectRequest]>(captureMessages.connect);
export const start = defineUpdate<CaptureStatus, [Tables | undefined]>(captureMessages.start);
export const pause = defineUpdate<CaptureStatus, [unknown]>(captureMessages.pause);
export const resume = defineUpdate<CaptureStatus, [unknown]>(captureMessages.resume);
export const stop = defineUpdate<CaptureStatus, [unknown]>(captureMessages.stop);
export const addTables = defineUpdate<CaptureStatus, [Tables]>(captureMessages.addTables);
export const removeTables = defineUpdate<CaptureStatus, [Tables]>(captureMessages.removeTables);
export const resync = defineUpdate<CaptureStatus, [Tables | undefined]>(captureMessages.resync);
export const approveSchema = defineUpdate<CaptureStatus, [Tables | undefined]>(captureMessages.approveSchema);
export const remove = defineUpdate<CaptureStatus, [Removal | undefined]>(captureMessages.remove);
export const status = defineQuery<CaptureStatus>(captureMessages.status);

/** Registers all handlers. */
export function listen(capture: Capture, connection: Connection): void {
  const { state } = capture;
  setHandler(status, () => statusOf(state), { description: 'State of the source, its tables and its last lease.' });
  setHandler(snapshotProgress, (progress) => capture.snapshots.heard(progress), {
    description: 'How far a snapshot is; sent by its flow.',
  });
  setHandler(rulesChanged, () => capture.tryRulesAgain(), {
    description: 'Other rules are in force: tables that theirs have stopped are tried again. Sent by the catalog.',
  });
  // In the order in which Temporal UI shows them: what people need most comes first.
  listenToRunning(capture, connection);
  listenToTables(capture, connection);
  setHandler(
    connect,
    async (input) => {
      const answer = await failing(() => connection.connect(readConnectRequest(input)));
      if (answer.outcome === 'same') capture.announce();
      return answer;
    },
    {
      description: 'Connects the source: a ConnectRequest, its connection string sealed or e.g. "${DATABASE_URL}".',
      validator: (input) => {
        readConnectRequest(input);
        expectPresent(capture);
      },
    },
  );
}

function listenToRunning(capture: Capture, connection: Connection): void {
  const { state } = capture;
  const ready = () => expectReady(capture, connection);
  setHandler(start, (input) => failing(() => startTables(capture, readTables(input, false))), {
    description: 'Begins to copy: {"tables": ["…"]} for some (unknown ones are added), no input for all.',
    validator: (input) => {
      ready();
      readTables(input, false);
    },
  });
  setHandler(pause, () => capture.halt('paused'), {
    description:
      'No input. Ends copying for a while, and keeps its place; answers when the last batch is written. The source keeps its log meanwhile.',
    validator: (input) => {
      ready();
      expectNoInput(input, captureMessages.pause);
      if (state.wish === 'running' || state.wish === 'paused') return;
      throw refuse('conflict', `the source is ${state.wish}`, 'Only a running source can be paused.');
    },
  });
  setHandler(
    resume,
    () => {
      capture.begin();
      return statusOf(state);
    },
    {
      description: 'No input. Goes on where it stopped, without a new snapshot; tries again what has failed.',
      validator: (input) => {
        ready();
        expectNoInput(input, captureMessages.resume);
        if (state.wish === 'connected') throw refuse('conflict', 'the source was never started', 'Send `start`.');
      },
    },
  );
  setHandler(stop, () => capture.halt('stopped'), {
    description: 'No input. Like pause, but a start of the whole pipeline makes it go on, too.',
    validator: (input) => {
      ready();
      expectNoInput(input, captureMessages.stop);
    },
  });
}

function listenToTables(capture: Capture, connection: Connection): void {
  const { state } = capture;
  const ready = () => expectReady(capture, connection);
  setHandler(addTables, (input) => failing(() => addMore(capture, readTables(input, true)!)), {
    description: 'Copies more tables: {"tables": ["accounts", "sales.*"]}.',
    validator: (input) => {
      ready();
      readTables(input, true);
    },
  });
  setHandler(
    removeTables,
    (input) => {
      capture.release(expectKnown(capture, readTables(input, true)!));
      return statusOf(state);
    },
    {
      description: 'Ends copying some tables: {"tables": ["…"]}. Their copies stay.',
      validator: (input) => {
        ready();
        const tables = expectKnown(capture, readTables(input, true)!);
        if (tables.length < state.tables.length) return;
        throw refuse('conflict', 'no table would be left', 'Send `stop`, or `remove` to remove the source.');
      },
    },
  );
  setHandler(
    resync,
    (input) => {
      const names = readTables(input, false);
      capture.resync(names ? expectKnown(capture, names) : state.tables.filter((table) => table.started));
      return statusOf(state);
    },
    {
      description: 'Copies tables from their beginning again: {"tables": ["…"]}, no input for all. Cures failed ones.',
      validator: (input) => {
        ready();
        expectKnown(capture, readTables(input, false) ?? []);
        if (state.wish === 'connected') throw refuse('conflict', 'the source was never started', 'Send `start`.');
      },
    },
  );
  setHandler(
    approveSchema,
    (input) => {
      capture.resync(expectWaiting(capture, readTables(input, false)));
      return statusOf(state);
    },
    {
      description:
        'Agrees with changed definitions: the tables that wait for it, or {"tables": ["…"]} of them, are copied as they are now.',
      validator: (input) => {
        ready();
        expectWaiting(capture, readTables(input, false));
      },
    },
  );
  setHandler(remove, (input) => capture.remove(readRemoval(input)), {
    description:
      'Drops slot and publication, {"drop_copies": true} the copies too; {"force": true} without the source.',
    validator: (input) => {
      ready();
      readRemoval(input);
    },
  });
}

async function startTables(capture: Capture, names: string[] | undefined): Promise<CaptureStatus> {
  const { state } = capture;
  if (names) await includeTables(capture, names);
  else for (const table of state.tables) table.started = true;
  if (state.tables.length === 0) {
    throw refuse('conflict', 'no table is connected', 'Name tables: {"tables": ["…"]}.');
  }
  // A table that was left out until now needs the publication.
  const more = state.tables.some((table) => table.started && table.status === 'pending' && !table.start_position);
  capture.begin();
  if (more) capture.reconfigure();
  return statusOf(state);
}

async function addMore(capture: Capture, names: string[]): Promise<CaptureStatus> {
  await includeTables(capture, names);
  capture.reconfigure();
  return statusOf(capture.state);
}

/** Marks known tables as started, and finds the others in the source. Throws `preflight` with findings. */
async function includeTables(capture: Capture, names: string[]): Promise<void> {
  const { state } = capture;
  const known = names.flatMap((name) => findTable(state, name) ?? []);
  const unknown = names.filter((name) => !findTable(state, name));
  takeIn(capture, unknown.length > 0 ? await findMissing(state, unknown) : []);
  for (const table of known) table.started = true;
}

/** Has tables that were found in the source copied. */
export function takeIn(capture: Capture, found: FlowTable[]): void {
  const { state } = capture;
  expectPresent(capture);
  const fresh = found.filter((table) => !state.tables.some((other) => other.asset_id === table.asset_id));
  if (JSON.stringify(state).length + JSON.stringify(fresh).length > stateLimit) {
    throw refuse('configuration', 'the source would have too many tables', 'Split them over several sources.');
  }
  expectOwnAssets(state, found);
  state.tables.push(...fresh);
  const assets = new Set(found.map((table) => table.asset_id));
  state.taken_out = state.taken_out?.filter((table) => !assets.has(table.asset_id));
  state.left_out = state.left_out?.filter((table) => !found.some((one) => tableName(one) === table.table));
  for (const table of state.tables) if (assets.has(table.asset_id)) table.started = true;
}

/** Preflight has compared the tables that are asked for with one another only. */
function expectOwnAssets(state: FlowState, found: FlowTable[]): void {
  for (const table of found) {
    const owner = state.tables.find((other) => other.asset_id === table.asset_id);
    if (!owner || tableName(owner) === tableName(table)) continue;
    const reason = `${tableName(table)} would become ${owner.asset_id} in ClickHouse, as ${tableName(owner)} has`;
    throw refuse('conflict', reason, 'Capture it by another source, with options.asset_ids.');
  }
}

/** The tables that names and globs mean in the source, none = all of `public`. Throws `preflight` with findings. */
export async function findMissing(
  { request, tables }: FlowState,
  names: string[],
  config = request.config,
): Promise<FlowTable[]> {
  const beside = tables.map(({ schema, table }) => `${schema}.${table}`);
  const answer = await askPreflight({ ...request, config: { ...config, tables: names } }, { beside });
  const blockers = answer.findings.filter((finding) => finding.blocking);
  if (blockers.length > 0) throw blocked(blockers);
  return answer.tables.map((table) => newTable(table, true));
}

/** Failures of activities become the update's own: the caller reads kind and remedy, not the wrapping. */
export async function failing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { report } = readFailure(error);
    if (error instanceof Error && error.name === 'ApplicationFailure') throw error;
    throw refuse(report.kind, report.reason, report.remedy);
  }
}

function expectPresent(capture: Capture): void {
  if (!capture.removing && !capture.removed) return;
  throw refuse('conflict', 'the source is being removed', 'Connect it again when it is gone.');
}

export function expectReady(capture: Capture, connection: Connection): void {
  expectPresent(capture);
  if (connection.established) return;
  throw refuse('conflict', 'the source is still being connected', 'Try again in a moment.');
}

/** The tables that wait because of a schema change: those that are named, or all. */
function expectWaiting(capture: Capture, names: string[] | undefined): FlowTable[] {
  const waiting = waitingTables(capture.state);
  const meant = names ? expectKnown(capture, names) : waiting;
  const other = meant.find((table) => !waiting.includes(table));
  if (meant.length > 0 && !other) return meant;
  const what = other ? `${tableName(other)} does not wait` : 'no table waits';
  throw refuse('conflict', `${what} for anybody to agree with a change`, 'See the states of its tables.');
}

function expectKnown(capture: Capture, names: string[]): FlowTable[] {
  return names.map((name) => {
    const table = findTable(capture.state, name);
    if (table) return table;
    const known = capture.state.tables.slice(0, 30).map(tableName).join(', ');
    throw refuse('not_found', `the source has no table ${name}`, `Known are ${known}.`);
  });
}
