/** The flows as one script for the worker's sandbox, kept from start to start: to build it takes more than a second. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { bundleWorkflowCode, DefaultLogger } from '@temporalio/worker';
import { isEntryPoint, nodeArguments } from './child.ts';
import { projectFolder } from './settings.ts';

const day = 86_400_000;
const flowsFile = path.join(projectFolder, 'flows', 'index.ts');
const payloadConverterPath = path.join(projectFolder, 'flows', 'payloadConverter.ts');

/**
 * Path of the bundle for the flows as they are now: beside the packages, or in `{home}/cache` where those cannot be
 * written. It is built if it is not there, in a process of its own: the bundler's 120 MB would stay with the worker for
 * ever.
 */
export async function flowBundle(home: string): Promise<string> {
  const name = `flows-${fingerprint()}.cjs`;
  const folders = [path.join(projectFolder, 'node_modules', '.cache', 'sluice'), path.join(home, 'cache')];
  const known = folders.map((folder) => path.join(folder, name)).find((file) => existsSync(file));
  if (known) return known;
  const folder = folders.find(canWrite) ?? folders[1]!;
  const file = path.join(folder, name);
  const program = fileURLToPath(import.meta.url);
  await promisify(execFile)(process.execPath, nodeArguments(program, folder, file));
  return file;
}

function canWrite(folder: string): boolean {
  try {
    mkdirSync(folder, { recursive: true });
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

async function buildBundle(folder: string, file: string): Promise<void> {
  const logger = new DefaultLogger('WARN');
  const { code } = await bundleWorkflowCode({ workflowsPath: flowsFile, payloadConverterPath, logger });
  // Written aside and renamed: another worker never reads half a bundle.
  const draft = `${file}.${process.pid}`;
  writeFileSync(draft, code);
  renameSync(draft, file);
  for (const name of readdirSync(folder)) {
    if (!name.startsWith('flows-') || !name.endsWith('.cjs')) continue;
    // A younger one may be in use: another checkout may share these packages.
    const made = statSync(path.join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    if (Date.now() - made > day) rmSync(path.join(folder, name), { force: true });
  }
}

/** Names all that the bundle is made from: our files, the SDK and Node. */
function fingerprint(): string {
  const hash = createHash('sha256').update(process.version);
  const sdk = createRequire(import.meta.url).resolve('@temporalio/workflow/package.json');
  hash.update(readFileSync(sdk));
  for (const folder of ['flows', 'model']) {
    for (const name of readdirSync(path.join(projectFolder, folder)).sort()) {
      if (!name.endsWith('.ts') || name.endsWith('.test.ts')) continue;
      hash.update(`${folder}/${name}\0`).update(readFileSync(path.join(projectFolder, folder, name)));
    }
  }
  return hash.digest('hex').slice(0, 16);
}

if (isEntryPoint(import.meta.url)) await buildBundle(process.argv[2]!, process.argv[3]!);
