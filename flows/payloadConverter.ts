/**
 * How flows decode what they are sent: as the SDK does it, but what cannot be decoded becomes an Unreadable. An error in
 * its place would come before any reader, and have the worker try again for ever while the run seems to go on.
 */
import { defaultPayloadConverter, type Payload, type PayloadConverter } from '@temporalio/common';
import { Unreadable } from './unreadable.ts';

/** Found by this name: workers/bundle.ts names the file. */
export const payloadConverter: PayloadConverter = {
  toPayload: (value, context, hint) => defaultPayloadConverter.toPayload(value, context, hint),
  fromPayload(payload, context, hint) {
    try {
      return defaultPayloadConverter.fromPayload(payload, context, hint);
    } catch (error) {
      // Answers of activities are our own: there it is better to stand still than to go on with nothing.
      if (context?.type !== 'workflow') throw error;
      return new Unreadable(reasonOf(payload)) as never;
    }
  },
};

function reasonOf({ metadata }: Payload): string {
  const letters = String.fromCharCode(...(metadata?.encoding ?? []).slice(0, 40));
  const encoding = letters.replace(/[^\w/.+-]/g, '?');
  if (encoding === 'json/plain') return 'the input cannot be read: it is no JSON';
  return `the input cannot be read: its encoding is ${encoding || 'not named'}, and must be json/plain`;
}
