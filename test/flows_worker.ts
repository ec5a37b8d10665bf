/**
 * A worker process with activities by script, for tests that kill it. Argument: the script of its one source as JSON.
 * Prints each call of an activity as a line of JSON on stdout, at its begin and at its end.
 */
import { createLog } from '../workers/log.ts';
import { readSettings } from '../workers/settings.ts';
import { runWorker } from '../workers/worker.ts';
import { type Script, ScriptedCapture } from './scripted_capture.ts';

const [source, script] = JSON.parse(process.argv[2]!) as [string, Script];
const capture = new ScriptedCapture((call) => process.stdout.write(`${JSON.stringify(call)}\n`));
capture.scripts.set(source, script);
const ending = new AbortController();
process.once('SIGTERM', () => ending.abort());
const settings = readSettings();
await runWorker({
  settings,
  log: createLog('worker', settings.logLevel),
  activities: () => capture,
  signal: ending.signal,
  ready: () => process.stdout.write('{"ready":true}\n'),
});
process.exit(capture.broken.length === 0 ? 0 : 1);
