/** `npm start`: installs what is missing, then runs `sluice up` with the same arguments. Plain JavaScript, no packages. */
import { installPackages, requireNode } from './install.js';

requireNode();
if (!(await installPackages())) process.exit(1);
process.argv.splice(2, 0, 'up');
await import('./sluice.js');
