/** `sluice lineage`: where rows come from. */
import type { Command } from 'commander';
import type { RowLineage } from '../api/control/lineage_shapes.ts';
import { getRowLineage } from '../api/control/row_lineage.ts';
import { print, printJson, table, wantsJson, withControl } from './print.ts';

export function addLineage(program: Command, done: (status: number) => void): void {
  program
    .command('lineage <asset>')
    .description('which batch, run and commit made each version of a row')
    .requiredOption('--row <key>', 'key of the row: plain text, or a JSON object by column')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `\nExamples:\n  $ npx sluice lineage postgres_main_accounts --row 1\n  $ npx sluice lineage shop_items --row '{"order_id": 7, "line": 2}'`,
    )
    .action(async (asset: string, options: { row: string }, command: Command) => {
      const answer = await withControl((control) => getRowLineage(control, asset, options.row));
      if (wantsJson(command)) printJson(answer);
      else print(lineageText(answer));
      done(0);
    });
}

function lineageText({ asset_id: asset, key, versions }: RowLineage): string {
  if (versions.length === 0) return `${asset} has no row ${key}`;
  const rows = versions.map(({ op, position, committed_at, batch_id }) => {
    return [committed_at.replace('T', ' ').slice(0, 23), op, position, batch_id ?? 'not recorded'];
  });
  const links = versions.flatMap(({ workflow }) => workflow?.url ?? []);
  const more = links.length > 0 ? `\n${[...new Set(links)].join('\n')}` : '';
  return `${table(['committed (UTC)', 'change', 'position', 'batch'], rows)}${more}`;
}
