/** Flow `catalog`: the registry of sources, schemas and rules, one entity flow with the id `catalog`. */
import {
  allHandlersFinished,
  condition,
  continueAsNew,
  defineQuery,
  defineSignal,
  defineUpdate,
  setCurrentDetails,
  setHandler,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import { idPattern } from '../model/asset.ts';
import { captureWorkflowId, catalogMessages, catalogWorkflowId } from '../model/messages.ts';
import type { DeclaredRules } from '../model/rules.ts';
import type { ConnectRequest } from '../model/source.ts';
import { CatalogRules } from './catalogRules.ts';
import { CatalogSchemas, type SchemasState } from './catalogSchemas.ts';
import { isObject, readConnectRequest, refusalOf, stateLimit } from './input.ts';
import { code, count, flowLink, flowsLink, page, section } from './markdown.ts';
import { refuse } from './refuse.ts';
import { searchAttributes } from './searchAttributes.ts';

/** What the catalog carries from run to run. */
export interface CatalogState {
  /** Sealed connect requests, by id. */
  sources: ConnectRequest[];
  /** Absent until a schema is registered: then it is read from ClickHouse. */
  schemas?: SchemasState;
  /** Absent until a rule or check is declared: then they are read from ClickHouse. */
  rules?: DeclaredRules;
}

export const registerSource = defineUpdate<ConnectRequest, [ConnectRequest]>(catalogMessages.registerSource);
export const removeSource = defineUpdate<boolean, [{ id: string }]>(catalogMessages.removeSource);
export const sources = defineQuery<ConnectRequest[]>(catalogMessages.sources);
export const source = defineQuery<ConnectRequest | null, [string]>(catalogMessages.source);

/** Sent by `captureSource`, so that a source is known whoever started its flow, and again after a loss of the catalog. */
export const announceSource = defineSignal<[ConnectRequest]>('announceSource');
/** Sent by `captureSource` when it has removed its source. */
export const forgetSource = defineSignal<[{ id: string }]>('forgetSource');

/** Keeps the list of sources, the registry of schemas, and rules and checks, for ever. */
export async function catalog(carried: CatalogState = { sources: [] }): Promise<void> {
  if (workflowInfo().workflowId !== catalogWorkflowId) {
    throw refuse('configuration', 'there is one catalog', `Start it with --workflow-id ${catalogWorkflowId}.`);
  }
  const state = readState(carried);
  const schemas = new CatalogSchemas(carried.schemas);
  const rules = new CatalogRules(carried.rules, () => state.sources.map(({ id }) => id));
  listen(state);
  schemas.listen();
  rules.listen();
  upsertSearchAttributes([{ key: searchAttributes.flow, value: 'catalog' }]);
  describe(state);
  await condition(() => workflowInfo().continueAsNewSuggested);
  await condition(allHandlersFinished);
  await continueAsNew<typeof catalog>({ ...state, schemas: schemas.state, rules: rules.state });
}

function readState(input: unknown): CatalogState {
  if (isObject(input) && Array.isArray(input.sources)) return { sources: input.sources.map(readConnectRequest) };
  throw refusalOf(input, 'Start it without input, or with {"sources": []}.')('the input is not a catalog');
}

function listen(state: CatalogState): void {
  setHandler(
    registerSource,
    (request) => {
      keep(state, request);
      return readConnectRequest(request);
    },
    {
      description: 'Adds or replaces a source: a sealed connect request. It does not start anything.',
      validator: (request) => {
        const read = readConnectRequest(request);
        const others = state.sources.filter((known) => known.id !== read.id);
        if (JSON.stringify([...others, read]).length > stateLimit) throw tooLarge();
      },
    },
  );
  setHandler(removeSource, ({ id }) => drop(state, id), {
    description: 'Takes a source out of the list, {"id": "…"}; answers whether it was there. Its flow is left alone.',
    validator: (input) => {
      if (isObject(input) && typeof input.id === 'string' && idPattern.test(input.id)) return;
      throw refusalOf(input, 'Right is e.g. {"id": "postgres_main"}.')('the input names no source');
    },
  });
  const announced = (request: ConnectRequest) => {
    // A signal cannot be refused: what is wrong, or too much, is left out.
    try {
      keep(state, request);
    } catch {}
  };
  setHandler(announceSource, announced, { description: 'Like registerSource; sent by the flow of a source.' });
  const forgotten = (input: { id: string }) => {
    if (isObject(input) && typeof input.id === 'string') drop(state, input.id);
  };
  setHandler(forgetSource, forgotten, { description: 'Like removeSource; sent by the flow of a source.' });
  setHandler(sources, () => state.sources, { description: 'All sources as connect requests; secrets are sealed.' });
  setHandler(source, (id) => state.sources.find((known) => known.id === id) ?? null, {
    description: 'One source by its id, or null.',
  });
}

function keep(state: CatalogState, input: unknown): void {
  const request = readConnectRequest(input);
  const others = state.sources.filter((known) => known.id !== request.id);
  const next = [...others, request].sort((a, b) => (a.id < b.id ? -1 : 1));
  if (JSON.stringify(next).length > stateLimit) throw tooLarge();
  state.sources = next;
  describe(state);
}

function drop(state: CatalogState, id: string): boolean {
  const count = state.sources.length;
  state.sources = state.sources.filter((known) => known.id !== id);
  describe(state);
  return state.sources.length < count;
}

function tooLarge(): Error {
  return refuse(
    'configuration',
    'the catalog would be larger than 512 KB',
    'Name fewer tables in `config.tables` (globs are short), or remove sources that are not needed.',
  );
}

function describe(state: CatalogState): void {
  const lines = state.sources.slice(0, 100).map(({ id, type }) => {
    return `${flowLink(captureWorkflowId(id), `**${id}**`)} (${type}): its flow is ${code(captureWorkflowId(id))}`;
  });
  const more = state.sources.length > 100 ? [`and ${state.sources.length - 100} more`] : [];
  const none = `**no sources yet** · connect one: ${code('npx sluice sources connect --help')}`;
  setCurrentDetails(
    page(
      state.sources.length === 0
        ? none
        : `**${count(state.sources.length, 'source')}** · what each does is on the page of its flow`,
      section('Sources', [...lines, ...more]),
      section('More', [
        `sources that ${flowsLink('SluiceFlow = "captureSource" AND SluicePhase = "failed"', 'have failed')}, or ${flowsLink('SluiceFlow = "captureSource" AND SluicePhase = "paused"', 'are paused')}`,
        `[deployments](/namespaces/{namespace}/schedules): what runs by schedule`,
      ]),
    ),
  );
}
