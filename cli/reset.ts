/** `sluice reset`: the state of the stack on this machine is thrown away, so that the next start begins anew. */
import { existsSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { RunRecord } from '../workers/embedded/run_record.ts';
import { readSettings } from '../workers/settings.ts';
import { print, printJson, wantsJson } from './print.ts';

type Done = (status: number) => void;

/** What the stack makes in its state folder. Nothing else there is touched. */
const made = [
  'postgresql',
  'postgresql.password',
  'clickhouse',
  'temporal.db',
  'temporal.db-shm',
  'temporal.db-wal',
  'asset_api.json',
  'secret.key',
  'asset_data',
  'openlineage',
  'logs',
  'cache',
];

export function addReset(program: Command, done: Done): void {
  const command = program
    .command('reset')
    .description(
      'throw away all state of the stack on this machine; what a source elsewhere keeps for it is left there',
    )
    .option('--yes', 'do it; without, only say what would go')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExamples:\n  $ npx sluice reset\n  $ npx sluice reset --yes');
  command.action(async (options: { yes?: boolean }) => {
    const { home } = readSettings();
    const names = made.filter((name) => existsSync(path.join(home, name)));
    if (options.yes && names.length > 0) await remove(home, names);
    if (wantsJson(command))
      printJson({ home, removed: options.yes ? names : [], would_remove: options.yes ? [] : names });
    else print(text(home, names, options.yes === true));
    done(0);
  });
}

/** Errors: `conflict` while a stack runs there. */
async function remove(home: string, names: string[]): Promise<void> {
  const record = await RunRecord.take(home, print);
  try {
    for (const name of names) rmSync(path.join(home, name), { recursive: true, force: true });
  } finally {
    record.release();
  }
}

function text(home: string, names: string[], removed: boolean): string {
  if (names.length === 0) return `There is nothing to throw away in ${home}.`;
  const list = names.map((name) => `  ${name}`).join('\n');
  if (removed) return `Thrown away in ${home}:\n${list}\nThe next \`npm start\` begins anew.`;
  return (
    `This would throw away, in ${home}:\n${list}\n` +
    'Copies, histories and the key of sealed connection strings go with it. A database of yours that is connected keeps its slot, and log for it:\n' +
    'delete such sources first (sluice sources delete). To do it: npx sluice reset --yes'
  );
}
