/** Builds the activities of extracting for a worker. */
import type { Client } from '@temporalio/client';
import { CaptureContext, type CaptureSettings } from '../capture/context.ts';
import type { ExtractActivities } from './contract.ts';
import { extractFile } from './extract_file.ts';
import { planBackfill } from './plan_backfill.ts';
import { planExtract } from './plan_extract.ts';
import { resyncTables } from './resync_tables.ts';

export interface ExtractSettings extends CaptureSettings {
  /** Folder of the CSV files. */
  assetData: string;
}

export function createExtractActivities(options: { settings: ExtractSettings; client: Client }): ExtractActivities {
  const { settings, client } = options;
  const context = new CaptureContext(settings, client);
  return {
    planExtract: (input) => planExtract(context, client, input),
    extractFile: (input) => extractFile(context, settings.assetData, input),
    planBackfill: (input) => planBackfill(context, client, input),
    resyncTables: (input) => resyncTables(client, input),
  };
}
