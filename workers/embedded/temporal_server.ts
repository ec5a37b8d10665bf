/** The embedded Temporal: the dev server with its UI, kept in one SQLite file. */
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { Connection } from '@temporalio/client';
import { GuardedProcess, waitReady } from './guarded_process.ts';

/** What flows set on themselves, so that people find them in Temporal UI. SQLite visibility allows ten keywords. */
export const searchAttributes: Record<string, 'Keyword' | 'KeywordList'> = {
  SluiceSource: 'Keyword',
  SluiceFlow: 'Keyword',
  SluiceDeployment: 'Keyword',
  SluicePhase: 'Keyword',
  SluiceTags: 'KeywordList',
};

/** Histories are the audit trail: the dev server's day is too short. */
const retentionSeconds = 90 * 86_400;

export interface TemporalOptions {
  home: string;
  /** The `temporal` program; see temporal_binary.ts. */
  binary: string;
  port: number;
  /** 0 starts without UI. */
  uiPort: number;
  namespace: string;
}

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
      ...Object.entries(searchAttributes).map(([name, type]) => `--search-attribute=${name}=${type}`),
    ],
    logFile: path.join(options.home, 'logs', 'temporal.log'),
  });
  try {
    await waitReady(child, () => keepsHistories(address, options.namespace), 60_000);
  } catch (error) {
    await child.stop('SIGTERM', 3000);
    throw error;
  }
  return { child, address };
}

/** True once the namespace answers and keeps histories long enough. */
async function keepsHistories(address: string, namespace: string): Promise<boolean> {
  const connection = await Connection.connect({ address, connectTimeout: 2000 });
  try {
    const { config } = await connection.workflowService.describeNamespace({ namespace });
    const seconds = Number(config?.workflowExecutionRetentionTtl?.seconds ?? 0);
    if (seconds < retentionSeconds) {
      await connection.workflowService.updateNamespace({
        namespace,
        config: { workflowExecutionRetentionTtl: { seconds: retentionSeconds as never } },
      });
    }
    return true;
  } finally {
    await connection.close();
  }
}
