/**
 * Loaded into a worker by `--import`: SIGUSR2 begins a profile of its JavaScript, the next one writes it to the file that
 * SLUICE_PROFILE names. Other processes that inherit the option are left alone.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';

const file = process.env.SLUICE_PROFILE;

if (file && process.argv[2]?.endsWith('workers/worker.ts')) {
  const session = new Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.setSamplingInterval', { interval: 200 });
  let running = false;
  process.on('SIGUSR2', () => {
    if (!running) session.post('Profiler.start');
    else {
      session.post('Profiler.stop', (_error, answer) => {
        writeFileSync(`${file}.part`, JSON.stringify(answer?.profile));
        renameSync(`${file}.part`, file);
      });
    }
    running = !running;
  });
}
