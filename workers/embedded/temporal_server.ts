/** The embedded Temporal: the dev server with its UI, kept in one SQLite file. */
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { Connection } from '@temporalio/client';
import type { SearchAttributeType } from '@temporalio/common';
import { searchAttributes } from '../../flows/searchAttributes.ts';
import { GuardedProcess, waitReady } from './guarded_process.ts';

export interface TemporalOptions {
  home: string;
  /** The `temporal` program; see temporal_binary.ts. */
  binary: string;
  port: number;
  /** 0 starts without UI. */
  uiPort: number;
  namespace: string;
}

/** Names of types in Temporal's command line. */
const typeNames: Partial<Record<SearchAttributeType, string>> = { KEYWORD: 'Keyword', KEYWORD_LIST: 'KeywordList' };

/** Starts the server and returns when its namespace answers. Errors: `missing_part`. */
export async function startTemporal(options: TemporalOptions): Promise<{ child: GuardedProcess; address: string }> {
  mkdirSync(options.home, { recursive: true });
  const address = `127.0.0.1:${options.port}`;
  const child = await GuardedProcess.start({
    name: 'Temporal',
    command: options.binary,
    args: [
      'server',
      'start-dev',
      '--ip=127.0.0.1',
      `--port=${options.port}`,
      ...(options.uiPort === 0 ? ['--headless'] : [`--ui-port=${options.uiPort}`]),
      `--db-filename=${path.join(options.home, 'temporal.db')}`,
      `--namespace=${options.namespace}`,
      '--log-level=error',
      // Without these two every activity of a flow waits about 50 ms twice.
      '--dynamic-config-value=history.transferProcessorMaxPollRPS=2000',
      '--dynamic-config-value=history.timerProcessorMaxPollRPS=2000',
      ...Object.values(searchAttributes).map(({ name, type }) => `--search-attribute=${name}=${typeNames[type]}`),
    ],
    logFile: path.join(options.home, 'logs', 'temporal.log'),
  });
  try {
    await waitReady(child, () => answers(address, options.namespace), 60_000);
  } catch (error) {
    await child.stop('SIGTERM', 3000);
    throw error;
  }
  return { child, address };
}

async function answers(address: string, namespace: string): Promise<boolean> {
  const connection = await Connection.connect({ address, connectTimeout: 2000 });
  try {
    await connection.workflowService.describeNamespace({ namespace });
    return true;
  } finally {
    await connection.close();
  }
}
