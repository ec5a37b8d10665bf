/** A real Temporal development server for one test file, on a free port with its own database, gone afterwards. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { findTemporal } from '../workers/embedded/temporal_binary.ts';
import { connectTemporal } from '../workers/temporal_client.ts';

export interface TemporalServer {
  address: string;
  /** Folder that is removed at the end; tests may use it. */
  folder: string;
  /** Runs the `temporal` CLI against this server: its stdout, stderr and exit code. */
  cli(...args: string[]): Promise<{ stdout: string; stderr: string; code: number }>;
  /** Kills the server and starts it on the same port and database. */
  restart(whileAway?: () => Promise<void>): Promise<void>;
  stop(): Promise<void>;
}

export async function startTemporal(): Promise<TemporalServer> {
  const program = await findTemporal(() => {});
  const folder = await mkdtemp(path.join(os.tmpdir(), 'sluice-temporal-'));
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  let server = await spawnServer(program, folder, port);
  return {
    address,
    folder,
    async cli(...args) {
      try {
        const answer = await promisify(execFile)(program, [...args, '--address', address], { maxBuffer: 64 << 20 });
        return { ...answer, code: 0 };
      } catch (error) {
        const { stdout = '', stderr = '', code = 1 } = error as { stdout?: string; stderr?: string; code?: number };
        return { stdout, stderr, code };
      }
    },
    async restart(whileAway) {
      await end(server);
      await whileAway?.();
      server = await spawnServer(program, folder, port);
    },
    async stop() {
      await end(server);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function spawnServer(program: string, folder: string, port: number): Promise<ChildProcess> {
  // Without these two, each activity of a flow waits 50 ms twice.
  const quick = ['history.transferProcessorMaxPollRPS=2000', 'history.timerProcessorMaxPollRPS=2000'];
  const flags = ['--headless', '--log-level', 'error', '--ip', '127.0.0.1', '--port', `${port}`];
  const database = ['--db-filename', path.join(folder, 'temporal.db')];
  const config = quick.flatMap((value) => ['--dynamic-config-value', value]);
  const server = spawn(program, ['server', 'start-dev', ...flags, ...database, ...config], { stdio: 'ignore' });
  for (let attempt = 0; attempt < 100; attempt += 1) {
    try {
      const client = await connectTemporal({ temporalAddress: `127.0.0.1:${port}`, temporalNamespace: 'default' });
      await client.connection.workflowService.describeNamespace({ namespace: 'default' });
      await client.connection.close();
      return server;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  await end(server);
  throw new Error('the Temporal server did not start');
}

async function end(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const gone = new Promise((resolve) => server.once('exit', resolve));
  server.kill('SIGKILL');
  await gone;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
