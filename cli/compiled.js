/**
 * Runs TypeScript programs of this project. Each is compiled once, with all that it imports of ours, into one file beside
 * the packages, and compiled again when one of its sources is another: to read them one by one takes a second longer at
 * every start. Where nothing can be written, they are read one by one. Plain JavaScript.
 */
import { createHash, randomUUID } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const project = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const cache = path.join(project, 'node_modules', '.cache', 'sluice');
const day = 86_400_000;

/** Imports a program by its path. Errors: those of the program itself. */
export async function importProgram(file) {
  const compiled = process.env.SLUICE_PROFILE ? undefined : await compiledProgram(path.resolve(file));
  if (compiled === undefined) (await import('tsx/esm/api')).register();
  else process.setSourceMapsEnabled(true);
  return await import(pathToFileURL(compiled ?? path.resolve(file)).href);
}

/** Path of the compiled program; undefined when there can be none. */
async function compiledProgram(file) {
  // Another checkout may share these packages.
  const place = createHash('sha256').update(project).digest('hex').slice(0, 8);
  const name = `${path.relative(project, file).replace(/[^a-zA-Z0-9]+/g, '-')}-${place}`;
  try {
    return newestOf(name) ?? (await compile(file, name));
  } catch (error) {
    if (process.env.DEBUG) process.stderr.write(`${file} is not compiled: ${error.message}\n`);
    return undefined;
  }
}

/** What was compiled last, if it is made from the sources as they are now. */
function newestOf(name) {
  try {
    const { compiled, sources } = JSON.parse(readFileSync(path.join(cache, `${name}.json`), 'utf8'));
    const same = statSync(compiled).isFile() && sources.every(([file, mark]) => markOf(file) === mark);
    return same ? compiled : undefined;
  } catch {
    return undefined;
  }
}

/** Changes with a file. */
function markOf(file) {
  const { mtimeMs, size } = statSync(file);
  return `${mtimeMs} ${size}`;
}

async function compile(file, name) {
  const { build } = await import('esbuild');
  const compiled = path.join(cache, `${name}-${randomUUID().slice(0, 8)}.mjs`);
  const marks = new Map();
  await build({
    entryPoints: [file],
    outfile: compiled,
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: 'node20',
    sourcemap: true,
    sourcesContent: false,
    logLevel: 'silent',
    plugins: [
      { name: 'own places', setup: ({ onLoad }) => onLoad({ filter: /\.[jt]s$/ }, (args) => load(args.path, marks)) },
    ],
  });
  // Written aside and renamed: nobody ever reads half of it.
  writeFileSync(`${compiled}.json`, JSON.stringify({ compiled, sources: [...marks] }));
  renameSync(`${compiled}.json`, path.join(cache, `${name}.json`));
  removeOld(name, compiled);
  return compiled;
}

/** A source, which finds the files beside it where they are, and not beside what was compiled. */
function load(file, marks) {
  marks.set(file, markOf(file));
  const own = { url: pathToFileURL(file).href, dirname: path.dirname(file) };
  const contents = readFileSync(file, 'utf8').replace(/import\.meta\.(url|dirname)\b/g, (_, name) =>
    JSON.stringify(own[name]),
  );
  return { contents, loader: path.extname(file).slice(1) };
}

/** Those of a day ago: what is younger may just be read by who has found it. */
function removeOld(name, compiled) {
  for (const entry of readdirSync(cache)) {
    const file = path.join(cache, entry);
    if (!entry.startsWith(`${name}-`) || file.startsWith(compiled)) continue;
    const made = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    if (Date.now() - made > day) rmSync(file, { force: true });
  }
}
