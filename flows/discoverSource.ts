/** Flow `discoverSource`: what a source has to copy, and what stands in the way. Nothing is connected or changed. */
import { setCurrentDetails, upsertSearchAttributes } from '@temporalio/workflow';
import type { DiscoverAnswer } from '../model/messages.ts';
import type { ConnectRequest } from '../model/source.ts';
import { activities, askOptions } from './activities.ts';
import { readConnectRequest, stateLimit } from './input.ts';
import { code, count, page } from './markdown.ts';
import { refuse } from './refuse.ts';
import { searchAttributes } from './searchAttributes.ts';

/** Runs preflight for a connect request, as `captureSource` would take it. */
export async function discoverSource(input: ConnectRequest): Promise<DiscoverAnswer> {
  const request = readConnectRequest(input);
  upsertSearchAttributes([{ key: searchAttributes.flow, value: 'discoverSource' }]);
  const options = { ...askOptions, summary: `look at ${request.type} as ${request.id}` };
  const { findings, tables } = await activities.preflightSource.executeWithOptions(options, [{ request }]);
  if (JSON.stringify([findings, tables]).length > stateLimit)
    throw refuse('configuration', 'there is too much to tell', 'Name some tables, or a narrower glob.');
  setCurrentDetails(
    page(`**${count(tables.length, 'table')}** · ${count(findings.length, 'finding')} · ${code(request.id)}`),
  );
  return { tables, findings };
}
