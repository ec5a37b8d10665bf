/** What commands print: tables for people, JSON for programs. */

import type { Command } from 'commander';
import { redact } from '../activities/secrets.ts';
import { type Control, openControl } from '../api/control/control.ts';
import { FindingsError } from '../api/control/findings.ts';
import { IncompatibleError } from '../api/control/incompatible.ts';
import type { SluiceError } from '../model/errors.ts';
import { ShapeError } from '../model/shape_error.ts';

/** True when `--json` was given, wherever it stands. */
export function wantsJson(command: Command): boolean {
  return Boolean(command.optsWithGlobals().json);
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** An error for programs, on stdout like any answer. */
export function printProblem(error: SluiceError): void {
  const more = {
    ...(error instanceof FindingsError ? { findings: error.findings } : {}),
    ...(error instanceof ShapeError ? { errors: error.issues } : {}),
    ...(error instanceof IncompatibleError ? { mode: error.mode, reasons: error.reasons } : {}),
  };
  printJson({
    error: {
      kind: error.kind,
      reason: redact(error.message),
      remedy: redact(error.remedy),
      place: error.place,
      ...more,
    },
  });
}

/** Lines of a table: columns padded to their widest value, numbers to the right. */
export function table(heads: string[], rows: (string | number | null)[][]): string {
  const texts = rows.map((row) => row.map(cell));
  const widths = heads.map((head, index) => Math.max(head.length, ...texts.map((row) => row[index]?.length ?? 0)));
  const numeric = heads.map(
    (_, index) => rows.length > 0 && rows.every((row) => typeof row[index] === 'number' || row[index] === null),
  );
  const line = (cells: string[]) =>
    cells
      .map((text, index) => (numeric[index] ? text.padStart(widths[index] ?? 0) : text.padEnd(widths[index] ?? 0)))
      .join('  ')
      .trimEnd();
  return [line(heads), ...texts.map(line)].join('\n');
}

/** Control characters of data must not reach a terminal as such. */
function cell(value: string | number | null): string {
  if (value === null) return '–';
  if (typeof value === 'number') return value.toLocaleString('en-GB', { maximumFractionDigits: 2 });
  return value.replace(/[\u0000-\u001f\u007f-\u009f]/g, (char) => JSON.stringify(char).slice(1, -1));
}

/** Runs `use` with the control module and closes it whatever happens. */
export async function withControl<Answer>(use: (control: Control) => Promise<Answer>): Promise<Answer> {
  const control = openControl();
  try {
    return await use(control);
  } finally {
    await control[Symbol.asyncDispose]();
  }
}
