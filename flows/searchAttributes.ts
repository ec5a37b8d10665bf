/** Search attributes that flows set: filters and columns of Temporal UI. The worker registers them. */
import { defineSearchAttributeKey, type SearchAttributePair } from '@temporalio/common';

export const searchAttributes = {
  /** Id of the source. */
  source: defineSearchAttributeKey('SluiceSource', 'KEYWORD'),
  /** Type of the flow. */
  flow: defineSearchAttributeKey('SluiceFlow', 'KEYWORD'),
  deployment: defineSearchAttributeKey('SluiceDeployment', 'KEYWORD'),
  /** State of the flow, e.g. `streaming`. */
  phase: defineSearchAttributeKey('SluicePhase', 'KEYWORD'),
  tags: defineSearchAttributeKey('SluiceTags', 'KEYWORD_LIST'),
};

/** The attributes of a flow that works for a source. */
export function sourceAttributes(source: string, flow: string): SearchAttributePair[] {
  return [
    { key: searchAttributes.source, value: source },
    { key: searchAttributes.flow, value: flow },
  ];
}
