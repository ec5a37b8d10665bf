#!/usr/bin/env node
/** The command `sluice`: TypeScript runs as it is, by tsx. */
import { register } from 'tsx/esm/api';

register();
const { main } = await import('./main.ts');
process.exitCode = await main(process.argv);
