/** The manifest of a run: which CSV files it wrote and what they hold. Stands beside them. */
import { readdir, readFile, rm } from 'node:fs/promises';
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

/**
 * Puts a file into its run's manifest, in place of an earlier one of the same name. A manifest of another run over the
 * same interval is replaced, and files that only that one had are removed at the end.
 */
export async function noteFile(
  folder: string,
  begun: Omit<Manifest, 'files' | 'rows' | 'complete'>,
  base: string,
  file: CsvSummary | undefined,
  complete: boolean,
): Promise<void> {
  const name = `${base}.manifest.json`;
  const known = await readManifest(path.join(folder, name));
  const same = known?.workflow.id === begun.workflow.id && known.workflow.run_id === begun.workflow.run_id;
  const kept = same ? known.files.filter((one) => one.file !== file?.file) : [];
  const files = [...kept, ...(file ? [file] : [])].sort((a, b) => numberOf(a.file) - numberOf(b.file));
  if (complete) await removeOthers(folder, base, new Set(files.map((one) => one.file)));
  // A run that found nothing leaves nothing behind.
  if (files.length === 0) return await rm(path.join(folder, name), { force: true });
  const rows = files.reduce((sum, one) => sum + one.rows, 0);
  await writeWhole(folder, name, `${JSON.stringify({ ...begun, files, rows, complete }, null, 2)}\n`);
}

function numberOf(file: string): number {
  return Number(/_(\d+)\.csv$/.exec(file)?.[1] ?? 0);
}

async function removeOthers(folder: string, base: string, wanted: Set<string>): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const own = name.startsWith(`${base}_`) && /^\d+\.csv$/.test(name.slice(base.length + 1));
    if (own && !wanted.has(name)) await rm(path.join(folder, name), { force: true });
  }
}

async function readManifest(file: string): Promise<Manifest | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as Manifest;
  } catch {
    return undefined;
  }
}
