/** What has to be there before anything else can run. Plain JavaScript, no packages: `npm start` and `npm test` use it. */
import { spawn } from 'node:child_process';
import { existsSync, lstatSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const project = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const leastNode = [20, 19];

/** Ends the process with a clear line when Node is too old. */
export function requireNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > leastNode[0] || (major === leastNode[0] && minor >= leastNode[1])) return;
  process.stderr.write(`Sluice needs Node ${leastNode.join('.')} or newer; this is ${process.versions.node}.\n`);
  process.exit(1);
}

/** Installs packages by the lockfile when any is missing or another version. True when they are there. */
export async function installPackages() {
  const missing = missingPackages();
  if (missing === 0) return true;
  if (lstatSync(path.join(project, 'node_modules'), { throwIfNoEntry: false })?.isSymbolicLink()) {
    // `npm ci` would empty the folder that it points to, which is somebody else's.
    process.stderr.write(`node_modules is a link, and ${missing} packages there are missing or other versions.\n`);
    return true;
  }
  const why = existsSync(path.join(project, 'node_modules'))
    ? 'are not those of package-lock.json'
    : 'are not installed';
  return await npmCi(`npm packages ${why}: npm ci`);
}

/** How many packages of the lockfile are not installed in its version. npm writes down what it installed. */
function missingPackages() {
  const wanted = readPackages(path.join(project, 'package-lock.json'));
  const installed = readPackages(path.join(project, 'node_modules', '.package-lock.json'));
  return Object.entries(wanted).filter(([place, { version, optional, devOptional, link }]) => {
    if (place === '' || link) return false;
    const there = installed[place];
    // Optional ones are for other systems, mostly.
    return there === undefined ? !(optional || devOptional) : there.version !== version;
  }).length;
}

function readPackages(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).packages ?? {};
  } catch {
    return {};
  }
}

/** Runs `npm ci` with one line of progress. Its output is shown when it fails. */
function npmCi(title) {
  const begun = Date.now();
  const seconds = () => `${Math.round((Date.now() - begun) / 1000)} s`;
  const terminal = process.stdout.isTTY;
  process.stdout.write(terminal ? title : `${title}\n`);
  const ticker = setInterval(() => terminal && process.stdout.write(`\r${title} … ${seconds()}`), 1000);
  // The npm that runs this script, if one does.
  const npm = process.env.npm_execpath;
  const [command, args] = npm?.endsWith('.js') ? [process.execPath, [npm]] : ['npm', []];
  const options = { cwd: project, stdio: ['ignore', 'pipe', 'pipe'] };
  return new Promise((resolve) => {
    const child = spawn(command, [...args, 'ci', '--include=dev', '--include=optional'], options);
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => {
        output = (output + chunk).slice(-20_000);
      });
    }
    const end = (fault) => {
      clearInterval(ticker);
      if (terminal) process.stdout.write('\r\x1b[2K');
      if (fault === undefined) process.stdout.write(`npm packages installed in ${seconds()}\n`);
      else process.stderr.write(`${output}\nnpm ci did not work: ${fault}. Run it by hand in ${project}.\n`);
      resolve(fault === undefined);
    };
    child.once('error', (error) => end(error.message));
    child.once('close', (code) => end(code === 0 ? undefined : `exit code ${code}`));
  });
}
