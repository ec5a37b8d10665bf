/** `node cli/program.js <file.ts> [arguments]`: runs a TypeScript program of this project. Plain JavaScript. */
import path from 'node:path';
import { importProgram } from './compiled.js';

// To the program it is as if Node had been asked to run it.
process.argv.splice(1, 2, path.resolve(process.argv[2]));
await importProgram(process.argv[1]);
