/** Flow `verifyCopy`: compares a source with its copies while both move, and answers whether they are identical. */
import { log, setCurrentDetails, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import type { VerifiedTable, VerifySum } from '../activities/capture/contract.ts';
import { captureWorkflowId, type VerifyAnswer, type VerifyRequest } from '../model/messages.ts';
import { activities, waitOptions } from './activities.ts';
import { readVerifyRequest } from './input.ts';
import { activitiesLink, code, count, flowLink, page, plain, section, trouble } from './markdown.ts';
import { readFailure } from './refuse.ts';
import { searchAttributes, sourceAttributes } from './searchAttributes.ts';

/** Compares one table, or all of the source. Wrong input fails at once. */
export async function verifyCopy(input: VerifyRequest): Promise<VerifyAnswer> {
  const request = readVerifyRequest(input);
  const { source, table } = request;
  upsertSearchAttributes([
    ...sourceAttributes(source, 'verifyCopy'),
    { key: searchAttributes.phase, value: 'comparing' },
  ]);
  const what = table === undefined ? `all tables of ${source}` : `${table} of ${source}`;
  const live = activitiesLink(workflowInfo().workflowId, 'How far it is');
  setCurrentDetails(
    page(`**comparing** ${plain(what)} with their copies, while both move`, `${live}: the table, and its rows.`),
  );
  try {
    const sum = await activities.verifySource.executeWithOptions({ ...waitOptions, summary: `compare ${what}` }, [
      request,
    ]);
    const { identical, tables, id, skipped } = sum;
    if (skipped !== undefined) {
      setCurrentDetails(page(`**not compared** · ${plain(what)}: ${plain(skipped)}`));
      upsertSearchAttributes([{ key: searchAttributes.phase, value: 'skipped' }]);
      return { identical, tables, id, skipped };
    }
    log.info('compared', { source, identical, tables });
    describe(source, what, sum);
    upsertSearchAttributes([{ key: searchAttributes.phase, value: identical ? 'identical' : 'different' }]);
    return { identical, tables, id };
  } catch (error) {
    setCurrentDetails(page(trouble(`${what} could not be compared`, readFailure(error).report)));
    throw error;
  }
}

function describe(source: string, what: string, { identical, tables, id, found = [] }: VerifySum): void {
  const differ = found.find((table) => !table.identical);
  setCurrentDetails(
    page(
      `**${identical ? 'identical' : 'different'}** · ${plain(what)} · ${count(tables, 'table')}`,
      differ && `**What to do**: look at the keys that differ (below). ${remedy(source, differ)}`,
      section('Tables', found.map(tableText)),
      section(identical ? 'The whole answer' : 'Keys that differ', [
        `${code(`GET /api/v1/verify/${source}`)}${identical ? '' : ': at most 100 a table'}`,
        `in ClickHouse: ${code(`SELECT result FROM _verifications WHERE id = '${id}'`)}`,
      ]),
    ),
  );
}

function remedy(source: string, { asset_id: asset }: VerifiedTable): string {
  // A deployment has one copy, of its own name.
  if (asset === source)
    return `Then pull its intervals again: ${code(`npx sluice backfill ${source} --from … --to …`)}`;
  const flow = flowLink(captureWorkflowId(source), code(captureWorkflowId(source)));
  return `Then send ${flow} the update \`resync\` with ${code(JSON.stringify({ tables: [asset] }))}.`;
}

function tableText(table: VerifiedTable): string {
  const problems = (['missing', 'extra', 'different', 'moving', 'rejected'] as const)
    .filter((problem) => table[problem] > 0)
    .map((problem) => `**${table[problem]} ${problem}**`);
  if (table.repaired) problems.push(`${table.repaired} repaired`);
  const found = problems.length === 0 ? 'identical' : problems.join(', ');
  return `${code(table.asset_id)} · ${count(table.source_rows, 'row')} · ${found}`;
}
