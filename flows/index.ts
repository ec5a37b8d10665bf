/** All flows, by the names under which Temporal knows them. */
export { backfill } from './backfill.ts';
export { captureSource } from './captureSource.ts';
export { catalog } from './catalog.ts';
export { discoverSource } from './discoverSource.ts';
export { extractAssets } from './extractAssets.ts';
export { settleRejects } from './settleRejects.ts';
export { snapshotTable } from './snapshotTable.ts';
export { unknownFlow as default } from './unknownFlow.ts';
export { verifyCopy } from './verifyCopy.ts';
export { watchLog } from './watchLog.ts';
