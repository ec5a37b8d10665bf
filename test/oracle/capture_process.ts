/**
 * Process: a worker's stand-in that can be killed at any moment. Runs the activities of capturing that it is told to on
 * stdin (one JSON a line) and answers on stdout. Keeps nothing: whoever starts it plays the flow. Ends with stdin.
 */
import { createInterface } from 'node:readline';
import { MockActivityEnvironment } from '@temporalio/testing';
import { CaptureContext, type CaptureSettings } from '../../activities/capture/context.ts';
import type { TableRef } from '../../activities/capture/contract.ts';
import { Leases } from '../../activities/capture/lease.ts';
import { prepareSource } from '../../activities/capture/prepare.ts';
import { copyChunk, finishSnapshot, planSnapshot } from '../../activities/capture/snapshots.ts';
import { SluiceError } from '../../model/errors.ts';
import type { ConnectRequest } from '../../model/source.ts';

export interface ProcessStart {
  settings: CaptureSettings;
  request: ConnectRequest;
}

export type ProcessCommand =
  | { do: 'prepare'; tables: TableRef[] }
  | { do: 'lease'; lease: number; tables: TableRef[]; seconds: number }
  | { do: 'plan'; table: TableRef }
  | { do: 'chunk'; table: TableRef; chunk: number }
  | { do: 'finish'; table: TableRef }
  | { do: 'cancel'; target: number };

export interface ProcessError {
  kind: string;
  reason: string;
  transient: boolean;
  stack: string;
}

const start = JSON.parse(process.argv[2]!) as ProcessStart;
const { request } = start;
const context = new CaptureContext(start.settings, undefined as never);
const leases = new Leases(context);
const running = new Map<number, MockActivityEnvironment>();

async function carryOut(command: ProcessCommand): Promise<unknown> {
  switch (command.do) {
    case 'prepare':
      return prepareSource(context, { request, tables: command.tables });
    case 'lease':
      return leases.run({ request, lease: command.lease, tables: command.tables, seconds: command.seconds });
    case 'plan':
      return planSnapshot(context, { request, table: command.table });
    case 'chunk':
      return copyChunk(context, { request, table: command.table, chunk: command.chunk });
    case 'finish':
      return finishSnapshot(context, { request, table: command.table });
    case 'cancel':
      return running.get(command.target)?.cancel();
  }
}

function describe(error: unknown): ProcessError {
  const known = error instanceof SluiceError ? error : undefined;
  return {
    kind: known?.kind ?? 'none',
    reason: error instanceof Error ? error.message : String(error),
    transient: known?.transient ?? false,
    stack: error instanceof Error ? `${error.stack}\n${String((error.cause as Error | undefined)?.stack ?? '')}` : '',
  };
}

async function answer(line: string): Promise<void> {
  const { id, attempt, ...command } = JSON.parse(line) as ProcessCommand & { id: number; attempt: number };
  const environment = new MockActivityEnvironment({ attempt });
  running.set(id, environment);
  let said: object;
  try {
    said = { id, result: (await environment.run(() => carryOut(command))) ?? null };
  } catch (error) {
    said = { id, error: describe(error) };
  }
  running.delete(id);
  process.stdout.write(`${JSON.stringify(said)}\n`);
}

process.on('unhandledRejection', (error) => {
  process.stderr.write(`unhandled rejection: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(9);
});
process.on('uncaughtException', (error) => {
  process.stderr.write(`uncaught exception: ${error.stack}\n`);
  process.exit(9);
});
const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => void answer(line));
lines.on('close', () => process.exit(0));
