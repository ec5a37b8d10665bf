/** Histories of flows as files, without anything of the machine that recorded them. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { projectFolder } from '../workers/settings.ts';
import type { TemporalServer } from './temporal_server.ts';

const folder = path.join(projectFolder, 'test', 'histories');

export interface RecordedHistory {
  name: string;
  workflowId: string;
  history: { events: Record<string, unknown>[] };
}

/** Writes the history of the flow's current or last run to test/histories/{name}.json. */
export async function recordHistory(
  server: Pick<TemporalServer, 'cli'>,
  workflowId: string,
  name: string,
): Promise<void> {
  const { stdout } = await server.cli('workflow', 'show', '--workflow-id', workflowId, '-o', 'json');
  const history = anonymous(JSON.parse(stdout));
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, `${name}.json`), `${JSON.stringify({ workflowId, history }, null, 1)}\n`);
}

/** A history as the SDK's replay takes it. */
export function readHistory(json: unknown): unknown {
  // Not `historyFromJSON`: where npm installs several copies of protobufjs, it refuses the type of another copy.
  const sdk = createRequire(createRequire(import.meta.url).resolve('@temporalio/worker'));
  const { temporal } = sdk('@temporalio/proto');
  const { fromJson } = createRequire(sdk.resolve('@temporalio/proto'))('protobufjs/ext/protojson');
  return fromJson(temporal.api.history.v1.History, json, { ignoreUnknownFields: true });
}

/** All recorded histories. */
export function recordedHistories(): RecordedHistory[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .map((file) => ({
      name: file.slice(0, -'.json'.length),
      ...(JSON.parse(readFileSync(path.join(folder, file), 'utf8')) as Omit<RecordedHistory, 'name'>),
    }));
}

/** Names of machines and processes, and stacks with their folders, say nothing about a flow. */
function anonymous(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(anonymous);
  // Names of sticky task queues begin with process and machine.
  if (typeof value === 'string') return /^\d+@/.test(value) ? 'worker' : value;
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([key, inner]) => {
    if (key === 'identity') return [key, 'worker'];
    if (key === 'stackTrace') return [key, ''];
    return [key, anonymous(inner)];
  });
  return Object.fromEntries(entries);
}
