/** Starts the embedded ClickHouse engine as a process. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { nodeArguments } from '../child.ts';
import { GuardedProcess, waitReady } from './guarded_process.ts';

/** Starts the engine on `$home/clickhouse`; returns when it answers. Errors: `missing_part`. */
export async function startClickhouse(options: {
  home: string;
  port: number;
}): Promise<{ child: GuardedProcess; url: string }> {
  const url = `http://127.0.0.1:${options.port}`;
  const program = path.join(path.dirname(fileURLToPath(import.meta.url)), 'clickhouse_engine.ts');
  const child = await GuardedProcess.start({
    name: 'ClickHouse',
    command: process.execPath,
    args: nodeArguments(program, path.join(options.home, 'clickhouse'), String(options.port)),
    // Each running statement holds a thread of this pool.
    env: { ...process.env, UV_THREADPOOL_SIZE: '16', TZ: 'UTC' },
    logFile: path.join(options.home, 'logs', 'clickhouse.log'),
  });
  try {
    await waitReady(child, async () => (await fetch(`${url}/ping`, { signal: AbortSignal.timeout(2000) })).ok, 60_000);
  } catch (error) {
    await child.stop('SIGTERM', 3000);
    throw error;
  }
  return { child, url };
}
