import { defaultPayloadConverter, type Payload } from '@temporalio/common';
import { describe, expect, it } from 'vitest';
import { isObject, readTables } from './input.ts';
import { payloadConverter } from './payloadConverter.ts';
import { Unreadable } from './unreadable.ts';

const sent = { type: 'workflow', namespace: 'default', workflowId: 'capture/main' } as const;
const answered = { type: 'activity', namespace: 'default', isLocal: false } as const;
const bytes = (text: string) => new TextEncoder().encode(text);
const payload = (encoding: string, data: string): Payload => ({
  metadata: { encoding: bytes(encoding) },
  data: bytes(data),
});

describe('the payloads of flows', () => {
  it('are those of the SDK', () => {
    for (const value of [{ tables: ['accounts'] }, 'text', 1, null, undefined, bytes('x')]) {
      const made = payloadConverter.toPayload(value);
      expect(made).toEqual(defaultPayloadConverter.toPayload(value));
      expect(payloadConverter.fromPayload(made, sent)).toEqual(value);
    }
  });

  it('that cannot be decoded say why, and nothing of themselves', () => {
    for (const [made, reason] of [
      [payload('json/protobuf', 'hunter2'), /encoding is json\/protobuf, and must be json\/plain/],
      [payload('json/plain', '{"password": "hunter2'), /it is no JSON/],
      [payload('\n<b>', ''), /encoding is \?\?b\?, /],
      [{ data: bytes('{}') }, /encoding is not named/],
    ] as const) {
      const read = payloadConverter.fromPayload(made, sent);
      expect(read).toBeInstanceOf(Unreadable);
      expect(isObject(read)).toBe(false);
      expect((read as Unreadable).reason).toMatch(reason);
      expect(() => readTables(read, false)).toThrow(reason);
      expect(JSON.stringify(read)).not.toContain('hunter2');
    }
  });

  it('that activities answer must be right', () => {
    expect(() => payloadConverter.fromPayload(payload('json/protobuf', '{}'), answered)).toThrow(/encoding/);
  });
});
