/** The activities as flows call them: how long each may take, and how it is tried again. */
import { ActivityCancellationType, type ActivityOptions, proxyActivities } from '@temporalio/workflow';
import type { CaptureActivities } from '../activities/capture/contract.ts';
import type { ExtractActivities } from '../activities/extract/contract.ts';
import type { SchemaActivities } from '../activities/schemas/contract.ts';
import type { RuleActivities } from '../activities/transform/contract.ts';

/** What is transient is tried for ever; the failure's own flag says what is not. */
const patient = { initialInterval: '1s', maximumInterval: '30s', backoffCoefficient: 2 } as const;

/**
 * What the SDK documents as default for cancellation is not what it sends: without this a pause was answered while the
 * lease still ran.
 */
const waits = { cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED } as const;

/**
 * A lease ends by itself after its seconds, or when a transaction that is under way then ends: cut before, a huge one would begin
 * again for ever. A lost worker shows within 10 s. Its attempts add up over short outages, so they must not make the next one wait
 * long: data are waiting.
 */
export const leaseOptions: ActivityOptions = {
  startToCloseTimeout: '24h',
  heartbeatTimeout: '10s',
  retry: { ...patient, maximumInterval: '5s' },
  ...waits,
};

/** Changes of publication, slot and copies: short, but behind locks that others may hold. */
export const prepareOptions: ActivityOptions = {
  startToCloseTimeout: '30m',
  heartbeatTimeout: '15s',
  retry: patient,
  ...waits,
};

/** A chunk of a snapshot; of a table without a key it is all of it. A heartbeat shows that its worker lives. */
export const chunkOptions: ActivityOptions = { ...prepareOptions, startToCloseTimeout: '24h' };

/** Somebody waits for the answer: two tries, then the error is the answer. */
export const askOptions: ActivityOptions = {
  startToCloseTimeout: '60s',
  heartbeatTimeout: '15s',
  retry: { ...patient, maximumAttempts: 2 },
  ...waits,
};

/** Waits for other people's transactions, or for the stream. */
export const waitOptions: ActivityOptions = {
  startToCloseTimeout: '24h',
  heartbeatTimeout: '15s',
  retry: patient,
  ...waits,
};

/** One file of assets: as long as the API needs, with a heartbeat that shows a lost worker. */
export const extractOptions: ActivityOptions = {
  startToCloseTimeout: '6h',
  heartbeatTimeout: '10s',
  retry: patient,
  ...waits,
};

/** Only for people to look at: may be missing. */
export const glanceOptions: ActivityOptions = {
  scheduleToCloseTimeout: '20s',
  startToCloseTimeout: '10s',
  retry: { ...patient, maximumAttempts: 2 },
  cancellationType: ActivityCancellationType.TRY_CANCEL,
};

export const activities = proxyActivities<CaptureActivities>(prepareOptions);
export const extractActivities = proxyActivities<ExtractActivities>(extractOptions);
export const schemaActivities = proxyActivities<SchemaActivities>(askOptions);
export const ruleActivities = proxyActivities<RuleActivities>(askOptions);
