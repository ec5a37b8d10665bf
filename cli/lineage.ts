/** `sluice lineage`: where assets, columns and rows come from; `sluice lineage-rebuild`: its index made anew. */
import type { Command } from 'commander';
import { rebuildLineage } from '../activities/lineage/rebuild.ts';
import { draw, drawnFlow, impactOf, walkGraph, walkLineage, wholeFlow } from '../api/control/lineage.ts';
import type { FlowAnswer, ImpactAnswer, RowLineage, WalkAnswer } from '../api/control/lineage_shapes.ts';
import { ownTables } from '../api/control/own_tables.ts';
import { getRowLineage } from '../api/control/row_lineage.ts';
import { SluiceError } from '../model/errors.ts';
import { type Direction, mergeGraphs } from '../model/lineage.ts';
import { print, printJson, table, wantsJson, withControl } from './print.ts';

interface LineageOptions {
  upstream?: boolean;
  downstream?: boolean;
  impact?: boolean;
  row?: string;
  depth?: string;
  column?: string;
  dot?: boolean;
  mermaid?: boolean;
}

const examples = `
Examples:
  $ npx sluice lineage --mermaid
  $ npx sluice lineage postgres_main_accounts --row 1
  $ npx sluice lineage clickhouse_assets --upstream
  $ npx sluice lineage postgres_main_accounts --impact --column email
  $ npx sluice lineage postgres_main_accounts --mermaid
  $ npx sluice lineage shop_items --row '{"order_id": 7, "line": 2}'`;

export function addLineage(program: Command, done: (status: number) => void): void {
  program
    .command('lineage [asset]')
    .description(
      'what an asset is made from and what is made from it; with --row, what made each version of a row; without an asset: the whole graph',
    )
    .option('--upstream', 'only what it is made from')
    .option('--downstream', 'only what is made from it')
    .option('--impact', 'what a change of it would reach')
    .option('--column <name>', 'with --impact: a change of this column alone')
    .option('--row <key>', 'key of a row: plain text, or a JSON object by column')
    .option('--depth <steps>', 'at most so many steps away')
    .option('--dot', 'print it for Graphviz')
    .option('--mermaid', 'print it for Mermaid')
    .option('--json', 'print JSON')
    .addHelpText('after', examples)
    .action(async (asset: string | undefined, options: LineageOptions, command: Command) => {
      if (asset === undefined) await showAll(options, wantsJson(command));
      else await show(asset, options, wantsJson(command));
      done(0);
    });
  program
    .command('lineage-rebuild')
    .description('make the index of lineage anew, from the histories that Temporal still keeps')
    .option('--json', 'print JSON')
    .action(async (_options: object, command: Command) => {
      const rebuilt = await withControl((control) => {
        return ownTables(control, (clickhouse) => rebuildLineage(control.temporal, clickhouse));
      });
      const { histories, happenings, added, dropped, kept } = rebuilt;
      if (wantsJson(command)) printJson(rebuilt);
      else
        print(
          `${histories} histories tell ${happenings} changes of lineage: ${added} were missing in the index, ${dropped} were wrong; ${kept} are from histories that are gone, and stay`,
        );
      done(0);
    });
}

/** Options that ask something of one asset. */
const ofOne = ['upstream', 'downstream', 'impact', 'row', 'depth', 'column'] as const;

async function showAll(options: LineageOptions, json: boolean): Promise<void> {
  const asked = ofOne.find((name) => options[name] !== undefined);
  if (asked)
    throw new SluiceError('configuration', `--${asked} is asked of an asset`, 'Name it: npx sluice lineage --help');
  const { dot, mermaid } = options;
  await withControl(async (control) => {
    if (dot || mermaid) process.stdout.write(await drawnFlow(control, dot ? 'dot' : 'mermaid'));
    else if (json) printJson(await wholeFlow(control));
    else print(flowText(await wholeFlow(control)));
  });
}

async function show(asset: string, options: LineageOptions, json: boolean): Promise<void> {
  if (options.row !== undefined) {
    const answer = await withControl((control) => getRowLineage(control, asset, options.row!));
    return json ? printJson(answer) : print(rowText(answer));
  }
  if (options.impact || options.column !== undefined) {
    const answer = await withControl((control) => impactOf(control, asset, options.column));
    return json ? printJson(answer) : print(impactText(answer));
  }
  const directions = directionsOf(options);
  const depth = readDepth(options.depth);
  await withControl(async (control) => {
    const walks: [Direction, WalkAnswer][] = [];
    for (const direction of directions) walks.push([direction, await walkLineage(control, asset, direction, depth)]);
    if (options.dot || options.mermaid) {
      const graphs = await Promise.all(walks.map(([, walk]) => walkGraph(control, walk)));
      process.stdout.write(draw(mergeGraphs(graphs), options.dot ? 'dot' : 'mermaid'));
    } else if (json) printJson(walks.length === 1 ? walks[0]![1] : Object.fromEntries(walks));
    else print(walks.map(([direction, walk]) => walkText(direction, walk)).join('\n\n'));
  });
}

function directionsOf({ upstream, downstream }: LineageOptions): Direction[] {
  if (Boolean(upstream) === Boolean(downstream)) return ['upstream', 'downstream'];
  return [upstream ? 'upstream' : 'downstream'];
}

function readDepth(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const depth = Number(text);
  if (Number.isSafeInteger(depth) && depth >= 0) return depth;
  throw new SluiceError('configuration', `--depth ${text} is not a number of steps`, 'Write e.g. --depth 2.');
}

const shownColumns = 8;

function flowText({ assets, edges }: FlowAnswer): string {
  if (assets.length === 0) return 'nothing is known yet: start a source, or run a deployment';
  const rows = assets.map(({ asset_id, type }) => [asset_id, type]);
  return `${table(['asset', 'type'], rows)}\n\n${waysText(edges)}`;
}

function waysText(edges: WalkAnswer['edges']): string {
  const ways = edges.map(({ from, to, via, columns }) => [from, to, via, columnsText(columns)]);
  return table(['from', 'to', 'via', 'columns'], ways);
}

function walkText(direction: Direction, { asset_id: asset, assets, edges }: WalkAnswer): string {
  const up = direction === 'upstream';
  if (assets.length === 0) return `${asset}: ${up ? 'nothing that is known makes it' : 'nothing is made from it'}`;
  const head = `${asset} ${up ? 'is made from' : 'goes into'}`;
  const rows = assets.map(({ asset_id, type, depth }) => [depth, asset_id, type]);
  return `${head}\n${table(['steps', 'asset', 'type'], rows)}\n\n${waysText(edges)}`;
}

function columnsText(columns: { from: string; to: string }[]): string {
  const texts = columns.map(({ from, to }) => (from === to ? from : `${from} → ${to}`));
  const more = texts.length > shownColumns ? ` and ${texts.length - shownColumns} more` : '';
  return `${texts.slice(0, shownColumns).join(', ')}${more}`;
}

function impactText({ asset_id: asset, total_affected: total, affected, critical_path: path }: ImpactAnswer): string {
  if (total === 0) return `a change of ${asset} reaches nothing`;
  const rows = affected.map(({ asset_id, type, depth, columns, sources_of_record: sources }) => {
    return [depth, asset_id, type, columns.length, sources.join(', ')];
  });
  const heads = ['steps', 'asset', 'type', 'columns', 'comes from'];
  return `a change of ${asset} reaches ${total}\n${table(heads, rows)}\nlongest chain: ${path.join(' → ')}`;
}

function rowText({ asset_id: asset, key, versions }: RowLineage): string {
  if (versions.length === 0) return `${asset} has no row ${key}`;
  const rows = versions.map((version) => {
    const { position, committed_at: at, batch_id: batch, rules_version: rules } = version;
    return [at.replace('T', ' ').slice(0, 23), changeText(version), position, batch ?? 'not recorded', rules];
  });
  const links = versions.flatMap(({ workflow }) => workflow?.url ?? []);
  const more = links.length > 0 ? `\n${[...new Set(links)].join('\n')}` : '';
  return `${table(['committed (UTC)', 'change', 'position', 'batch', 'rules'], rows)}${more}`;
}

/** What happened to the copy; of a row that a rule took out, what happened to the source. */
function changeText({ op, source_op: source, filtered_by: rules }: RowLineage['versions'][number]): string {
  return op === 'delete' && rules && rules.length > 0 ? `${source ?? 'change'}, kept out by ${rules.join(', ')}` : op;
}
