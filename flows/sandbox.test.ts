/** Flows and the model run in Temporal's sandbox: what it lacks, or what differs from replay to replay, may not be used. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';

const project = path.resolve(import.meta.dirname, '..');
const files = ['flows', 'model'].flatMap((folder) =>
  readdirSync(path.join(project, folder))
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))
    .map((name) => `${folder}/${name}`),
);

/** Imports and re-exports that remain at run time. */
const importPattern = /^(?:import|export)\s+(?!type\b)(?:[^;]*?\bfrom\s+)?'([^']+)'/gms;
const allowed: Record<string, RegExp> = {
  flows: /^(\.\/[A-Za-z]+\.ts|\.\.\/model\/[a-z_]+\.ts|@temporalio\/(workflow|common))$/,
  model: /^\.\/[A-Za-z_]+\.ts$/,
};
const missing = /\b(Buffer|process|crypto|require|fetch|performance|setImmediate|Intl|toLocale\w*)\b|\bnode:/;

/** The code without comments and strings. */
function bare(text: string): string {
  return text
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/`(?:\\.|[^`\\])*`/g, '``')
    .replace(/'(?:\\.|[^'\\\n])*'/g, "''")
    .replace(/\/\/.*$/gm, '');
}

describe.each(files)('%s', (file) => {
  const text = readFileSync(path.join(project, file), 'utf8');

  it('imports nothing from outside but types', () => {
    const imports = [...text.matchAll(importPattern)].map((match) => match[1]);
    expect(imports.filter((name) => !allowed[file.split('/')[0]!]!.test(name!))).toEqual([]);
  });

  it('uses nothing that the sandbox lacks', () => {
    expect(bare(text).match(missing)?.[0]).toBeUndefined();
  });
});

describe('the guard', () => {
  it('sees what it must', () => {
    const bad =
      "import { a } from 'node:fs';\nimport type { b } from '../activities/x.ts';\nimport {\n  c,\n} from '../activities/y.ts';\n";
    expect([...bad.matchAll(importPattern)].map((match) => match[1])).toEqual(['node:fs', '../activities/y.ts']);
    expect(bare("const x = Buffer.from('process'); // crypto").match(missing)?.[0]).toBe('Buffer');
    expect(bare("const x = 'process'; // crypto").match(missing)).toBeNull();
  });
});
