/** Files that commands take: JSON, rows of JSON, or YAML; `-` is the standard input. Errors: `configuration` with the file. */
import { readFileSync } from 'node:fs';
import { LineCounter } from 'yaml';
import { SluiceError } from '../model/errors.ts';
import { parseYaml } from '../workers/references.ts';

export function readJson(file: string): unknown {
  return parseJson(readText(file), file);
}

/** A JSON array, or a JSON value a line. */
export function readRows(file: string): unknown[] {
  const text = readText(file);
  if (text.trimStart().startsWith('[')) return parseJson(text, file) as unknown[];
  return text.split('\n').flatMap((line, index) => (line.trim() === '' ? [] : [parseJson(line, file, index + 1)]));
}

/** YAML, and so JSON too. */
export function readYaml(file: string): unknown {
  const lineCounter = new LineCounter();
  const document = parseYaml(readText(file), { lineCounter });
  const [problem] = document.errors;
  if (problem === undefined) return document.toJS({ maxAliasCount: 100 });
  const place = { file, line: problem.linePos?.[0].line ?? 1 };
  throw new SluiceError('configuration', problem.message.split('\n', 1)[0] ?? '', 'Correct the YAML.', place);
}

function readText(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (error) {
    const reason = `${file} cannot be read: ${(error as Error).message}`;
    throw new SluiceError('configuration', reason, 'Name a file that is there, or - for the standard input.', { file });
  }
}

function parseJson(text: string, file: string, line?: number): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const place = line === undefined ? { file } : { file, line };
    throw new SluiceError('configuration', `no JSON: ${(error as Error).message}`, 'Correct the JSON.', place);
  }
}
