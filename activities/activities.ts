/** All activities of a worker. */
import type { Client } from '@temporalio/client';
import { createCaptureActivities } from './capture/activities.ts';
import { CaptureContext } from './capture/context.ts';
import type { CaptureActivities } from './capture/contract.ts';
import { createExtractActivities, type ExtractSettings } from './extract/activities.ts';
import type { ExtractActivities } from './extract/contract.ts';
import { notingLineage } from './lineage/noted.ts';
import { emittingEvents } from './lineage/openlineage/emitting.ts';
import { createSchemaActivities } from './schemas/activities.ts';
import type { SchemaActivities } from './schemas/contract.ts';
import type { RuleActivities } from './transform/contract.ts';
import { createRuleActivities } from './transform/rule_activities.ts';

/** Activities and what they keep open; `close` when the worker ends. */
export function createActivities(options: {
  settings: ExtractSettings & { home: string; logLevel: string };
  client: Client;
}): CaptureActivities & ExtractActivities & SchemaActivities & RuleActivities & { close(): void } {
  const capture = createCaptureActivities(options);
  const { verifyDeployment, ...extract } = createExtractActivities(options);
  const activities: ReturnType<typeof createActivities> = {
    ...extract,
    ...createSchemaActivities(options),
    ...createRuleActivities(options),
    ...capture,
    // Sources and deployments share one namespace, and one way to be compared.
    verifySource: async (input) => (await verifyDeployment(input.source)) ?? (await capture.verifySource(input)),
  };
  const context = new CaptureContext(options.settings, options.client);
  const { home, assetData, logLevel } = options.settings;
  return notingLineage(emittingEvents(activities, { context, home, assetData, logLevel }), context);
}
