/** The flows as one script for the worker's sandbox, kept from start to start: to build it takes more than a second. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { bundleWorkflowCode, DefaultLogger } from '@temporalio/worker';
import { isEntryPoint } from './child.ts';
import { projectFolder } from './settings.ts';

const flowsFile = path.join(projectFolder, 'flows', 'index.ts');

/**
 * Path of the bundle for the flows as they are now, in `{home}/cache`. It is built if it is not there, in a process of
 * its own: the bundler's 120 MB would stay with the worker for ever.
 */
export async function flowBundle(home: string): Promise<string> {
  const folder = path.join(home, 'cache');
  const file = path.join(folder, `flows-${fingerprint()}.cjs`);
  if (existsSync(file)) return file;
  const program = fileURLToPath(import.meta.url);
  await promisify(execFile)(process.execPath, ['--import', import.meta.resolve('tsx'), program, folder, file]);
  return file;
}

async function buildBundle(folder: string, file: string): Promise<void> {
  const { code } = await bundleWorkflowCode({ workflowsPath: flowsFile, logger: new DefaultLogger('WARN') });
  mkdirSync(folder, { recursive: true });
  // Written aside and renamed: another worker never reads half a bundle.
  const draft = `${file}.${process.pid}`;
  writeFileSync(draft, code);
  renameSync(draft, file);
  for (const name of readdirSync(folder)) {
    const old = name.startsWith('flows-') && name.endsWith('.cjs') && name !== path.basename(file);
    if (old) rmSync(path.join(folder, name), { force: true });
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
