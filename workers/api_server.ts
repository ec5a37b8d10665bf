/**
 * The API process: serves REST, OpenAPI and the console, and brings up the sources of the configuration. Prints
 * `{"ready":true,"port":N}` when it listens; ends at SIGTERM, SIGINT, or when its parent has gone.
 */
import { redact } from '../activities/secrets.ts';
import { openControl } from '../api/control/control.ts';
import { bringUp, declareRules } from '../api/control/declared.ts';
import { buildServer } from '../api/server.ts';
import { asSluiceError, describeError } from '../model/errors.ts';
import { whenUnwanted } from './child.ts';
import { type Config, readConfig } from './config.ts';
import { createLog } from './log.ts';
import { loadOwnFunctions } from './own_functions.ts';
import { readSettings } from './settings.ts';

const emptyConfig: Config = {
  sources: [],
  transformations: undefined,
  quality: undefined,
  places: new Map(),
};

async function main(): Promise<void> {
  const settings = readSettings();
  const log = createLog('api', settings.logLevel);
  const config = settings.configFolder ? readConfig(settings.configFolder) : emptyConfig;
  await loadOwnFunctions(settings, log);
  const control = openControl(settings, { via: 'rest', who: settings.apiToken ? 'token' : 'loopback' });
  const server = await buildServer(control, log);
  const end = new AbortController();
  whenUnwanted((why) => {
    log.info(`stopping: ${why}`);
    end.abort();
    void server.close().finally(() => process.exit(0));
  });
  await server.listen({ host: settings.apiHost, port: settings.apiPort });
  const address = server.server.address();
  const port = typeof address === 'object' && address ? address.port : settings.apiPort;
  process.stdout.write(`${JSON.stringify({ ready: true, port })}\n`);
  const declared = (who: string) => ({ ...control, caller: { via: 'configuration' as const, who } });
  await Promise.all([
    bringUp(declared('cdc.yaml'), config.sources, log, end.signal),
    declareRules(declared('transformations.yaml, quality.yaml'), config, log, end.signal),
  ]);
}

main().catch((error: NodeJS.ErrnoException) => {
  const known = asSluiceError(error);
  const inUse = error.code === 'EADDRINUSE' ? 'port_in_use: the port of the API is taken. Set SLUICE_API_PORT. ' : '';
  process.stderr.write(`sluice api: ${inUse}${redact(describeError(known))}\n`);
  process.exit(known.kind === 'configuration' ? 2 : 1);
});
