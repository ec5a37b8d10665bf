/** Processes of Sluice itself as parts: TypeScript files that print `{"ready":true…}` when they are. */
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import path from 'node:path';
import { nodeArguments } from '../child.ts';
import { projectFolder } from '../settings.ts';
import { GuardedProcess, waitReady } from './guarded_process.ts';

export interface NodePartOptions {
  name: string;
  /** From the project's folder. */
  file: string;
  args?: string[];
  env: NodeJS.ProcessEnv;
  logFile: string;
  /** Default 60 s. */
  timeoutMs?: number;
}

/** Starts the process and returns when it has said that it is ready. Errors: `missing_part`. */
export async function startNodePart(options: NodePartOptions): Promise<GuardedProcess> {
  const from = statSync(options.logFile, { throwIfNoEntry: false })?.size ?? 0;
  const child = await GuardedProcess.start({
    name: options.name,
    command: process.execPath,
    args: nodeArguments(path.join(projectFolder, options.file), ...(options.args ?? [])),
    env: options.env,
    cwd: projectFolder,
    logFile: options.logFile,
  });
  try {
    await waitReady(child, async () => saysReady(options.logFile, from), options.timeoutMs ?? 60_000);
    return child;
  } catch (error) {
    await child.stop('SIGTERM', 3000);
    throw error;
  }
}

/** Looks at what the log got since `from` (or from its beginning, when it was set aside). */
function saysReady(file: string, from: number): boolean {
  const log = openSync(file, 'r');
  try {
    const { size } = statSync(file);
    const start = size < from ? 0 : from;
    const bytes = Buffer.alloc(Math.min(size - start, 1_000_000));
    readSync(log, bytes, 0, bytes.length, start);
    return /^\{"ready":true/m.test(bytes.toString('utf8'));
  } finally {
    closeSync(log);
  }
}
