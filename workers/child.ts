/** What the child processes of the embedded stack have in common: how they begin and how they notice their end. */
import { fstatSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { projectFolder } from './settings.ts';

/** The arguments with which Node runs a TypeScript program of this project. */
export function nodeArguments(file: string, ...args: string[]): string[] {
  return [path.join(projectFolder, 'cli', 'program.js'), file, ...args];
}

/** True in the file that Node was asked to run; call it with `import.meta.url`. */
export function isEntryPoint(moduleUrl: string): boolean {
  const started = process.argv[1];
  return started !== undefined && realpathSync(started) === fileURLToPath(moduleUrl);
}

/**
 * Calls `stop` once: at SIGTERM or SIGINT, and when the parent has gone. That shows by a closed IPC channel or, without
 * one, by the end of a stdin that is a pipe. A terminal or /dev/null on stdin says nothing about a parent.
 */
export function whenUnwanted(stop: (why: string) => void): void {
  let told = false;
  const once = (why: string): void => {
    if (told) return;
    told = true;
    stop(why);
  };
  process.once('SIGTERM', () => once('SIGTERM'));
  process.once('SIGINT', () => once('SIGINT'));
  if (process.connected) {
    process.once('disconnect', () => once('the parent has gone'));
    return;
  }
  if (!stdinIsPipe()) return;
  process.stdin.once('end', () => once('the parent has gone'));
  process.stdin.once('error', () => once('the parent has gone'));
  process.stdin.resume();
}

function stdinIsPipe(): boolean {
  try {
    const stdin = fstatSync(0);
    return stdin.isFIFO() || stdin.isSocket();
  } catch {
    return false;
  }
}
