/** What another configuration means for a source that is connected: what changes in place, and what does not. */
import { isGlob, isMatched, isNamed } from './glob.ts';
import { sameJson } from './same_json.ts';
import type { CaptureConfig } from './source.ts';

/** A table that is captured. */
interface Captured {
  asset_id: string;
  schema: string;
  table: string;
}

export interface SourceChanges<Table extends Captured> {
  /** Settings that are other ones, such as `poll_interval` or `options.slot`. */
  changed: string[];
  /** Of those the ones that only a source that is connected anew can have. */
  fixed: string[];
  /** Names and globs whose tables are not captured yet; [] = all of `public`, undefined = none is missing. */
  missing: string[] | undefined;
  /** Captured tables that the configuration does not mean. */
  extra: Table[];
}

/** Settings by table: they can be given for tables that are not captured yet. */
const byTable = ['exclude_columns', 'options.asset_ids'];
/** What a lease and its preparation read anew each time. */
const inPlace = ['schema_changes', 'verify', 'log_budget', 'failover', 'ddl_trigger'].map((name) => `options.${name}`);
const readAnew = ['tables', 'poll_interval', ...inPlace];

/** Compares the configuration of a source and its captured tables with what they are to be. */
export function sourceChanges<Table extends Captured>(
  now: CaptureConfig,
  next: CaptureConfig,
  captured: readonly Table[],
): SourceChanges<Table> {
  const [from, to] = [settingsOf(now), settingsOf(next)];
  const fields = [...new Set([...Object.keys(from), ...Object.keys(to)])];
  const changed = fields.filter((field) => !sameJson(from[field], to[field]));
  const fixed = changed.filter((field) => {
    if (byTable.includes(field)) return touches(from[field], to[field], captured);
    return !readAnew.includes(field);
  });
  const patterns = next.tables ?? [];
  const meant = patterns.length > 0 ? patterns : ['public.*'];
  const extra = captured.filter((table) => !meant.some((name) => isNamed(name, table) || isMatched(name, table)));
  return { changed, fixed, missing: missingOf(now, patterns, captured), extra };
}

/** Every setting by itself. */
export function settingsOf({ options, ...rest }: CaptureConfig): Record<string, unknown> {
  return { ...rest, ...Object.fromEntries(Object.entries(options).map(([name, value]) => [`options.${name}`, value])) };
}

/** True when a setting by table is another one for a table that is captured. */
function touches(from: unknown, to: unknown, captured: readonly Captured[]): boolean {
  const [before, after] = [from ?? {}, to ?? {}] as Record<string, unknown>[];
  const names = [...new Set([...Object.keys(before!), ...Object.keys(after!)])];
  return names.some((name) => {
    return !sameJson(before![name], after![name]) && captured.some((table) => isNamed(name, table));
  });
}

/** Globs that were there before are looked after by leases: what they leave out, people have taken out. */
function missingOf(now: CaptureConfig, patterns: string[], captured: readonly Captured[]): string[] | undefined {
  if (patterns.length === 0) return (now.tables ?? []).length === 0 ? undefined : [];
  const isThere = (name: string) => captured.some((table) => isNamed(name, table));
  const names = patterns.filter((name) => !isThere(name) && !(isGlob(name) && now.tables?.includes(name)));
  return names.length > 0 ? names : undefined;
}
