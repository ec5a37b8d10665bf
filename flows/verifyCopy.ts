/** Flow `verifyCopy`: compares a source with its copies while both move, and answers whether they are identical. */
import { log, setCurrentDetails, upsertSearchAttributes } from '@temporalio/workflow';
import type { VerifyRequest } from '../model/messages.ts';
import { activities, waitOptions } from './activities.ts';
import { readVerifyRequest } from './input.ts';
import { sourceAttributes } from './searchAttributes.ts';

/** What a comparison found; the differing keys are in `_verifications` under `id`. */
export interface VerifyAnswer {
  identical: boolean;
  tables: number;
  id: string;
}

/** Compares one table, or all of the source. Wrong input fails at once. */
export async function verifyCopy(input: VerifyRequest): Promise<VerifyAnswer> {
  const request = readVerifyRequest(input);
  upsertSearchAttributes(sourceAttributes(request.source, 'verifyCopy'));
  const what = request.table === undefined ? request.source : `${request.source} ${request.table}`;
  setCurrentDetails(`**comparing** ${what} with its copy`);
  const answer = await activities.verifySource.executeWithOptions({ ...waitOptions, summary: `compare ${what}` }, [
    request,
  ]);
  log.info('compared', { source: request.source, identical: answer.identical, tables: answer.tables });
  setCurrentDetails(
    `**${answer.identical ? 'identical' : 'different'}** · ${answer.tables} tables\n\n` +
      `- Details: \`GET /api/v1/verify/${request.source}\`, or \`_verifications\` in ClickHouse under id \`${answer.id}\``,
  );
  return answer;
}
