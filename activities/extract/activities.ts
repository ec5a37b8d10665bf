/** Builds the activities of extracting for a worker. */
import type { Client } from '@temporalio/client';
import { CaptureContext, type CaptureSettings } from '../capture/context.ts';
import type { VerifySum } from '../capture/contract.ts';
import { verifyAssets } from '../check/verify_assets.ts';
import type { ExtractActivities } from './contract.ts';
import { extractFile } from './extract_file.ts';
import { planBackfill } from './plan_backfill.ts';
import { planExtract } from './plan_extract.ts';
import { resyncTables } from './resync_tables.ts';
import { isDeployment } from './schedule_times.ts';

export interface ExtractSettings extends CaptureSettings {
  /** Folder of the CSV files. */
  assetData: string;
}

/** Compares the copy of a deployment with its API; undefined when there is no deployment of that name. */
type VerifyDeployment = (name: string) => Promise<VerifySum | undefined>;

export function createExtractActivities(options: {
  settings: ExtractSettings;
  client: Client;
}): ExtractActivities & { verifyDeployment: VerifyDeployment } {
  const { settings, client } = options;
  const context = new CaptureContext(settings, client);
  return {
    planExtract: (input) => planExtract(context, client, input),
    extractFile: (input) => extractFile(context, settings.assetData, input),
    planBackfill: (input) => planBackfill(context, client, input),
    resyncTables: (input) => resyncTables(client, input),
    verifyDeployment: async (name) =>
      (await isDeployment(client, name)) ? await verifyAssets(context, client, name) : undefined,
  };
}
