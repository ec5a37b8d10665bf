/**
 * `npm test`: installs what is missing, then type check, lint and all tests. Its last line is
 * `N passed, N failed[, N skipped]`; type check and lint count as one test each. Plain JavaScript, no packages.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { installPackages, requireNode } from '../cli/install.js';

const project = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const program = (name) => path.join(project, 'node_modules', ...name.split('/'));

/** Runs a Node program of a package with this terminal; resolves with its exit code. */
function run(script, args, env = {}) {
  return new Promise((resolve) => {
    const options = { cwd: project, stdio: 'inherit', env: { ...process.env, ...env } };
    const child = spawn(process.execPath, [script, ...args], options);
    child.once('error', (error) => {
      process.stderr.write(`${script}: ${error.message}\n`);
      resolve(127);
    });
    child.once('close', (code) => resolve(code ?? 1));
  });
}

/** Runs a check that counts as one test. */
async function check(title, script, args, totals) {
  process.stdout.write(`\n${title}\n`);
  const code = await run(script, args);
  if (code === 0) totals.passed++;
  else totals.failed++;
  process.stdout.write(`${title}: ${code === 0 ? 'passed' : `FAILED (exit code ${code})`}\n`);
}

/** Runs vitest and adds what its JSON report counts. */
async function runTests(args, totals) {
  const folder = mkdtempSync(path.join(tmpdir(), 'sluice-report-'));
  const report = path.join(folder, 'report.json');
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  try {
    const code = await run(program('vitest/vitest.mjs'), ['run', ...reporters, ...args]);
    const counts = countTests(report);
    totals.passed += counts.passed;
    totals.skipped += counts.skipped;
    // A file that cannot be loaded, an unhandled error or a crash fails without a failed test.
    totals.failed += counts.failed > 0 || code === 0 ? counts.failed : 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function countTests(report) {
  try {
    const { testResults, numPassedTests, numFailedTests, numPendingTests, numTodoTests } = JSON.parse(
      readFileSync(report, 'utf8'),
    );
    const broken = testResults.filter((file) => file.status === 'failed' && file.assertionResults.length === 0).length;
    return { passed: numPassedTests, failed: numFailedTests + broken, skipped: numPendingTests + (numTodoTests ?? 0) };
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

/** Gets the `temporal` program once, so that its minutes are not part of a test's time. */
async function prepareTemporal() {
  const script = `
    const { register } = await import('tsx/esm/api');
    register();
    const { findTemporal } = await import('./workers/embedded/temporal_binary.ts');
    const { describeError } = await import('./model/errors.ts');
    try {
      console.log('temporal: ' + (await findTemporal((line) => console.log(line))));
    } catch (error) {
      console.error(describeError(error));
      process.exit(1);
    }`;
  return await run('--input-type=module', ['--eval', script]);
}

async function main() {
  requireNode();
  const totals = { passed: 0, failed: 0, skipped: 0 };
  if (!(await installPackages())) totals.failed++;
  else {
    // Building it waits for the network for a while.
    const temporal = prepareTemporal();
    await check('Type check', program('typescript/bin/tsc'), [], totals);
    await check('Lint', program('@biomejs/biome/bin/biome'), ['check', '.'], totals);
    if ((await temporal) !== 0) totals.failed++;
    await runTests(process.argv.slice(2), totals);
  }
  // On a build machine a skipped test is one that nobody ran.
  const bad = totals.failed > 0 || (process.env.CI === 'true' && totals.skipped > 0);
  const skipped = totals.skipped > 0 ? `, ${totals.skipped} skipped` : '';
  process.stdout.write(`\n${totals.passed} passed, ${totals.failed} failed${skipped}\n`);
  process.exitCode = bad ? 1 : 0;
}

await main();
