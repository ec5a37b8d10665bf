/**
 * What activities tell of lineage. The worker notes it while they run, and `lineage-rebuild` reads the same from what Temporal
 * keeps of them: their names, inputs, results and times. So both say the same, and nothing is declared by hand.
 */
import type { PreparedSource, TableRef } from '../capture/contract.ts';

/** A run of a flow. */
export interface FlowRun {
  workflow_id: string;
  run_id: string;
}

/**
 * `begun` a table is captured, or a deployment loads, under a generation · `defined` what its copy is made from is another one
 * now · `ended` it is captured no more · `streams` a lease streams these tables, and no others.
 */
export interface Happening extends FlowRun {
  /** Source or deployment. */
  owner: string;
  /** Of the table, which its copy's table bears too; `*` for all of the owner. */
  asset: string;
  kind: 'begun' | 'defined' | 'ended' | 'streams';
  /** Tells those of one asset and kind apart: the generation, or the registration's number. What comes later has a higher one. */
  mark: string;
  /** Digest of the graph, where one was defined; of `streams` the assets, as JSON. */
  definition: string;
  /** ISO 8601 in UTC, to the millisecond: when the activity was scheduled. */
  at: string;
  /** In whose history it stands; `workflow_id` is the flow that made it so. */
  told_workflow: string;
  told_run: string;
}

/** An activity, as a worker runs it and as a history keeps it. */
export interface ToldActivity {
  name: string;
  input: unknown;
  /** Undefined while it has not ended well. */
  result: unknown;
  /** When it was scheduled, in milliseconds since 1970. */
  at: number;
  run: FlowRun;
}

/** Activities that tell something before they end. */
export const tellsAtOnce: ReadonlySet<string> = new Set(['captureLease']);
/** All that tell something. */
export const tellingActivities: ReadonlySet<string> = new Set([
  ...tellsAtOnce,
  'prepareSource',
  'releaseTables',
  'removeSource',
  'registerTables',
  'extractFile',
]);

type Tables = Pick<TableRef, 'asset_id' | 'generation'>[];

/** What an activity tells; nothing when it is none of those, or has not ended well. */
export function happeningsOf({ name, input, result, at, run }: ToldActivity): Happening[] {
  const note = (owner: string, asset: string, kind: Happening['kind'], more: Partial<Happening> = {}): Happening => {
    const told = { told_workflow: run.workflow_id, told_run: run.run_id };
    return { owner, asset, kind, mark: '', definition: '', at: new Date(at).toISOString(), ...run, ...told, ...more };
  };
  const begun = (owner: string, tables: Tables) =>
    tables.map(({ asset_id, generation }) => note(owner, asset_id, 'begun', { mark: String(generation) }));
  if (name === 'captureLease') {
    const { request, tables } = input as { request: { id: string }; tables: Tables };
    const assets = tables.map((table) => table.asset_id).sort();
    return [...begun(request.id, tables), note(request.id, '*', 'streams', { definition: JSON.stringify(assets) })];
  }
  if (result === undefined) return [];
  switch (name) {
    case 'prepareSource':
      return begun((input as { request: { id: string } }).request.id, (result as PreparedSource).tables);
    case 'releaseTables': {
      const { request, tables } = input as { request: { id: string }; tables: Tables };
      return tables.map(({ asset_id }) => note(request.id, asset_id, 'ended'));
    }
    case 'removeSource':
      return [note((input as { request: { id: string } }).request.id, '*', 'ended')];
    case 'extractFile': {
      const { request, number } = input as { request: { deployment: string }; number: number };
      return number === 1 ? [note(request.deployment, request.deployment, 'begun', { mark: '1' })] : [];
    }
    case 'registerTables': {
      const { source, id, workflow } = input as { source: string; id: number; workflow?: FlowRun };
      const { definitions = {} } = result as { definitions?: Record<string, string> };
      const more = { mark: String(id), ...workflow };
      return Object.entries(definitions).map(([asset, definition]) =>
        note(source, asset, 'defined', { ...more, definition }),
      );
    }
    default:
      return [];
  }
}

/** Of several that tell the same, the first: a table that is prepared again has begun only once. */
export function firsts(happenings: Happening[]): Happening[] {
  const kept = new Map<string, Happening>();
  const streamed = new Map<string, string>();
  for (const one of happenings.toSorted(byTime)) {
    const { owner, asset, kind, mark, at, definition } = one;
    if (kind === 'streams' && streamed.get(owner) === definition) continue;
    if (kind === 'streams') streamed.set(owner, definition);
    const again = kind === 'ended' || kind === 'streams';
    const key = JSON.stringify([owner, asset, kind, again ? at : mark]);
    if (kept.has(key)) continue;
    kept.set(key, one);
    // Whether a lease streams what has begun, the next one says, whatever it said before.
    if (kind === 'begun') streamed.delete(owner);
  }
  return [...kept.values()];
}

function byTime(a: Happening, b: Happening): number {
  return compare([a.at, a.workflow_id, a.run_id, a.asset], [b.at, b.workflow_id, b.run_id, b.asset]);
}

function compare(a: string[], b: string[]): number {
  const at = a.findIndex((text, index) => text !== b[index]);
  return at < 0 ? 0 : a[at]! < b[at]! ? -1 : 1;
}

/** A stretch of time in which one definition of an asset was in force. */
export interface Stretch extends FlowRun {
  owner: string;
  asset: string;
  /** Digest of its graph. */
  definition: string;
  /** Counts the definitions of the asset, from 1. */
  version: number;
  generation: number;
  since: string;
  /** Null while it is in force. */
  until: string | null;
}

/**
 * The stretches of all assets, in order of time. An asset that has begun and is not defined yet has none: its definition follows
 * in a moment, and counts from the beginning.
 */
export function stretchesOf(happenings: Happening[]): Stretch[] {
  const all = firsts(happenings);
  const assets = new Map<string, Happening[]>();
  const ofAll = all.filter((one) => one.asset === '*');
  for (const one of all) {
    if (one.asset === '*') continue;
    const key = JSON.stringify([one.owner, one.asset]);
    assets.set(key, [...(assets.get(key) ?? ofAll.filter((other) => other.owner === one.owner)), one]);
  }
  return [...assets].flatMap(([key, of]) => stretchesOfAsset(JSON.parse(key)[1], of.sort(byTime))).sort(byBegin);
}

function byBegin(a: Stretch, b: Stretch): number {
  return compare([a.since, a.owner, a.asset], [b.since, b.owner, b.asset]);
}

function stretchesOfAsset(asset: string, happenings: Happening[]): Stretch[] {
  const found: Stretch[] = [];
  /** False until a lease has streamed it: what is prepared and then left out was taken away in between. */
  let streamed = false;
  let begun: Happening | undefined;
  let defined: Happening | undefined;
  let version = 0;
  for (const one of happenings) {
    const last = found.at(-1);
    if (one.kind === 'streams') {
      const isStreamed = (JSON.parse(one.definition) as string[]).includes(asset);
      streamed ||= isStreamed;
      if (streamed || !begun) continue;
    }
    if (one.kind === 'ended' || one.kind === 'streams') {
      if (last?.until === null) last.until = one.at;
      begun = undefined;
      continue;
    }
    if (one.kind === 'begun') {
      // Who tells of an older generation is late.
      if (begun && Number(begun.mark) >= Number(one.mark)) continue;
      begun = one;
      streamed = false;
    } else {
      version += 1;
      defined = one;
    }
    if (!begun || !defined) continue;
    if (last?.until === null) last.until = one.at;
    const first = last === undefined && one.kind === 'defined';
    const { owner, workflow_id, run_id } = one;
    const { definition } = defined;
    const since = first ? begun.at : one.at;
    found.push({
      owner,
      asset,
      definition,
      version,
      generation: Number(begun.mark),
      since,
      until: null,
      workflow_id,
      run_id,
    });
  }
  return found.filter(({ since, until }) => since !== until);
}
