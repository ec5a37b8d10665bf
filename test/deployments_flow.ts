/** Stand-ins for deployed flows, for tests of schedules alone: they tell what they were started with. */
import { defineSearchAttributeKey } from '@temporalio/common';
import { ApplicationFailure, setCurrentDetails, sleep, workflowInfo } from '@temporalio/workflow';

const scheduledTime = defineSearchAttributeKey('TemporalScheduledStartTime', 'DATETIME');

interface Input {
  page_size?: number;
}

/** Ends at once; with `page_size` 13 it fails, with 14 it waits for its end. */
export async function extractAssets(input: Input) {
  const { workflowId, typedSearchAttributes } = workflowInfo();
  setCurrentDetails(`**pulling** for ${workflowId}`);
  if (input.page_size === 13) {
    const report = { kind: 'source_refused', reason: 'no thirteen', remedy: 'Take another number.' };
    throw ApplicationFailure.create({ message: 'no', type: report.kind, nonRetryable: true, details: [report] });
  }
  if (input.page_size === 14) await sleep('1h');
  return { input, nominal: typedSearchAttributes.get(scheduledTime)?.toISOString() ?? '' };
}

/** Takes long enough for a second request to find it. */
export async function backfill(input: object) {
  await sleep('2s');
  return { input };
}
