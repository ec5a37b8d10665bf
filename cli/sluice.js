#!/usr/bin/env node
/** The command `sluice`. */
import { fileURLToPath } from 'node:url';
import { importProgram } from './compiled.js';

const { main } = await importProgram(fileURLToPath(new URL('./main.ts', import.meta.url)));
process.exitCode = await main(process.argv);
