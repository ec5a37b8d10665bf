/**
 * Runs TypeScript programs of this project. Each is compiled once, with all that it imports of ours, into one file beside
 * the packages, and compiled again when one of its sources is another: to read them one by one takes a second longer at
 * every start. Where nothing can be written, they are read one by one. Plain JavaScript.
 */
import { randomUUID } from 'node:crypto';
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
  const name = path.relative(project, file).replace(/[^a-zA-Z0-9]+/g, '-');
  const known = path.join(cache, `${name}.json`);
  try {
    return newestOf(known) ?? (await compile(file, name, known));
  } catch (error) {
    if (process.env.DEBUG) process.stderr.write(`${file} is not compiled: ${error.message}\n`);
    return undefined;
  }
}

/** What was compiled last, if it is made from the sources as they are now. */
function newestOf(known) {
  try {
    const { folder, entry, sources } = JSON.parse(readFileSync(known, 'utf8'));
    return sources.every(([file, mark]) => markOf(file) === mark) ? path.join(cache, folder, entry) : undefined;
  } catch {
    return undefined;
  }
}

/** Changes with a file. */
function markOf(file) {
  const { mtimeMs, size } = statSync(file);
  return `${mtimeMs} ${size}`;
}

async function compile(file, name, known) {
  const { build } = await import('esbuild');
  const folder = `${name}-${randomUUID().slice(0, 8)}`;
  const marks = new Map();
  const { metafile } = await build({
    entryPoints: [file],
    outdir: path.join(cache, folder),
    absWorkingDir: project,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: 'node20',
    sourcemap: true,
    metafile: true,
    logLevel: 'silent',
    plugins: [
      { name: 'own places', setup: ({ onLoad }) => onLoad({ filter: /\.[jt]s$/ }, (args) => load(args.path, marks)) },
    ],
  });
  const own = path.relative(project, file);
  const [entry] = Object.entries(metafile.outputs).find(([, output]) => output.entryPoint === own);
  const sources = [
    ...marks,
    [path.join(project, 'package-lock.json'), markOf(path.join(project, 'package-lock.json'))],
  ];
  // Written aside and renamed: nobody ever reads half of it.
  const draft = path.join(cache, `${folder}.json`);
  writeFileSync(draft, JSON.stringify({ folder, entry: path.basename(entry), sources }));
  renameSync(draft, known);
  removeOld(name, folder);
  return path.join(cache, folder, path.basename(entry));
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

/** Younger ones may still be read by who has begun with them. */
function removeOld(name, current) {
  for (const folder of readdirSync(cache)) {
    if (!folder.startsWith(`${name}-`) || folder === current) continue;
    const { mtimeMs } = statSync(path.join(cache, folder), { throwIfNoEntry: false }) ?? { mtimeMs: Date.now() };
    if (Date.now() - mtimeMs > day) rmSync(path.join(cache, folder), { recursive: true, force: true });
  }
}
