/** The manifest of a run: which CSV files it wrote and what they hold. Stands beside them. */
import { readFile, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { compactInstant, parseInstant } from '../../model/instant.ts';
import type { ExtractRun } from './contract.ts';
import { type CsvSummary, writeWhole } from './csv_file.ts';

export interface Manifest {
  deployment: string;
  kind: 'rows' | 'backfill';
  /** The interval [from, to); `from` is '' for the beginning of time. */
  from: string;
  to: string;
  workflow: { id: string; run_id: string };
  columns: readonly string[];
  files: CsvSummary[];
  rows: number;
  /** True when the whole interval is in the files. */
  complete: boolean;
  /** Until then: files of a run over the same interval that had ended before; they go when this one has. */
  replaces?: string[];
}

/** What names of a run's files begin with. */
export function fileBase({ plan }: Pick<ExtractRun, 'plan'>): string {
  const name = (text: string) => (text === '' ? 'begin' : compactInstant(parseInstant(text) ?? 0n));
  return `${name(plan.from)}_${name(plan.to)}`;
}

/** Name of file `number` of a run. */
export function fileName(run: Pick<ExtractRun, 'plan'>, number: number): string {
  return `${fileBase(run)}_${number}.csv`;
}

/** Milliseconds after which a run that has not ended is believed to be dead. */
const forgotten = 3_600_000;

/**
 * Puts a file into its run's manifest, in place of an earlier one of the same name. A manifest of another run over the
 * same interval is replaced, and files that only that one had are removed at the end, unless it is still under way.
 */
export async function noteFile(
  folder: string,
  begun: Omit<Manifest, 'files' | 'rows' | 'complete' | 'replaces'>,
  base: string,
  file: CsvSummary | undefined,
  complete: boolean,
): Promise<void> {
  const name = `${base}.manifest.json`;
  const known = await readManifest(path.join(folder, name));
  const same = known?.workflow.id === begun.workflow.id && known.workflow.run_id === begun.workflow.run_id;
  const kept = same ? known.files.filter((one) => one.file !== file?.file) : [];
  const files = [...kept, ...(file ? [file] : [])].sort((a, b) => numberOf(a.file) - numberOf(b.file));
  const ended = known && !same && (known.complete || known.age > forgotten) ? known.files.map((one) => one.file) : [];
  const replaces = [...(known?.replaces ?? []), ...ended];
  if (complete) await removeOthers(folder, base, replaces, new Set(files.map((one) => one.file)));
  // A run that found nothing leaves nothing behind.
  if (files.length === 0) return await rm(path.join(folder, name), { force: true });
  const rows = files.reduce((sum, one) => sum + one.rows, 0);
  const manifest = { ...begun, files, rows, complete, ...(!complete && replaces.length > 0 && { replaces }) };
  await writeWhole(folder, name, `${JSON.stringify(manifest, null, 2)}\n`);
}

function numberOf(file: string): number {
  return Number(/_(\d+)\.csv$/.exec(file)?.[1] ?? 0);
}

async function removeOthers(folder: string, base: string, names: string[], wanted: Set<string>): Promise<void> {
  for (const name of names) {
    const own = name.startsWith(`${base}_`) && /^\d+\.csv$/.test(name.slice(base.length + 1));
    if (own && !wanted.has(name)) await rm(path.join(folder, name), { force: true });
  }
}

/** With its age in milliseconds. */
async function readManifest(file: string): Promise<(Manifest & { age: number }) | undefined> {
  try {
    const { mtimeMs } = await stat(file);
    return { ...(JSON.parse(await readFile(file, 'utf8')) as Manifest), age: Date.now() - mtimeMs };
  } catch {
    return undefined;
  }
}
