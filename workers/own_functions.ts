/** People's own functions for rules: config/functions, or the folder beside the configuration that is read. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type pino from 'pino';
import { loadFunctions } from '../activities/transform/custom_functions.ts';
import { describeError } from '../model/errors.ts';
import type { Settings } from './settings.ts';

const usual = fileURLToPath(new URL('../config', import.meta.url));

/** Loads them. A module that is wrong is told and left out; rules that name its functions say so. */
export async function loadOwnFunctions({ configFolder = usual }: Settings, log: pino.Logger): Promise<void> {
  const { names, errors } = await loadFunctions(path.join(configFolder, 'functions'));
  if (names.length > 0) log.info({ functions: names }, 'functions for rules');
  for (const error of errors) log.error(describeError(error));
}
