import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { nodeArguments } from '../workers/child.ts';
import { projectFolder } from '../workers/settings.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'sluice-program-'));
const program = path.join(folder, 'program.ts');
const cache = path.join(projectFolder, 'node_modules', '.cache', 'sluice');

const own = () =>
  readdirSync(cache).filter((name) => name.includes(path.basename(folder).replace(/[^a-zA-Z0-9]+/g, '-')));
const compiled = () => own().filter((name) => name.endsWith('.mjs'));

afterAll(() => {
  for (const name of own()) rmSync(path.join(cache, name));
  rmSync(folder, { recursive: true });
});

function run(...args: string[]) {
  const { stdout, stderr, status } = spawnSync(process.execPath, nodeArguments(program, ...args), { encoding: 'utf8' });
  return { said: stdout && JSON.parse(stdout), stderr, status };
}

function writePart(text: string): void {
  const file = path.join(folder, 'part.ts');
  writeFileSync(file, text);
  // Written twice within the clock's resolution, a file of the same length would look the same.
  utimesSync(file, new Date(), new Date(Date.now() + text.length * 1000));
}

it('runs a program as it stands, compiled once until one of its files is another', () => {
  writeFileSync(
    program,
    `import { part } from './part.ts';
     const later = (await import('./later.ts')).later as string;
     console.log(JSON.stringify([part, later, import.meta.url, process.argv.slice(1)]));`,
  );
  writeFileSync(path.join(folder, 'later.ts'), `export const later: string = 'later';`);
  writePart(`export const part: number = 1;`);
  const said = (part: number, ...args: string[]) => [part, 'later', pathToFileURL(program).href, [program, ...args]];
  expect(run('a', '--b')).toEqual({ said: said(1, 'a', '--b'), stderr: '', status: 0 });
  const first = compiled();
  expect(first).toHaveLength(1);
  expect(run().said).toEqual(said(1));
  expect(compiled()).toEqual(first);
  writePart(`export const part: number = 22;`);
  expect(run().said).toEqual(said(22));
  expect(compiled()).toHaveLength(2);
});

it('names the lines that people wrote', () => {
  writePart(`\n\nexport const part: number = (() => { throw new Error('here'); })();`);
  const { stderr, status } = run();
  expect(status).toBe(1);
  expect(stderr).toContain(`${path.join(folder, 'part.ts')}:3:`);
});

it.each(['cli/main.ts', 'workers/worker.ts', 'workers/api_server.ts'])(
  '%s needs no package of tests and benchmarks',
  (file) => {
    const importOnly = `import { importProgram } from './cli/compiled.js'; await importProgram('${file}');`;
    const run = spawnSync(process.execPath, ['--input-type=module', '--eval', importOnly], { cwd: projectFolder });
    expect(run.status, String(run.stderr)).toBe(0);
    const { dependencies } = JSON.parse(readFileSync(path.join(projectFolder, 'package.json'), 'utf8'));
    const unknown = importedPackages(file).filter((name) => !(name in dependencies));
    expect(unknown).toEqual([]);
    // Kafka's client belongs to a benchmark: a program that loads it loads more than it uses, at every start.
    expect(importedPackages(file)).not.toContain('kafkajs');
  },
);

/** Packages that the compiled program of this checkout loads at its start. */
function importedPackages(file: string): string[] {
  const source = path.join(projectFolder, file);
  const marks = readdirSync(cache).filter((name) => name.endsWith('.json'));
  const programs = marks.map((name) => JSON.parse(readFileSync(path.join(cache, name), 'utf8')));
  const program = programs.find(({ sources }) => sources[0][0] === source);
  const text = readFileSync(program.compiled, 'utf8');
  const names = [...text.matchAll(/^import (?:[^;]* from )?"((?:@[^/"]+\/)?[^/"]+)/gm)].map(([, name]) => String(name));
  return [...new Set(names)].filter((name) => !name.startsWith('node:') && !name.startsWith('.'));
}
