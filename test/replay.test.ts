/**
 * Flows that were recorded must replay: a change that makes them decide otherwise would strand the flows that run at
 * somebody's. Such a change needs `patched()`; new histories are recorded by
 * `RECORD_HISTORIES=1 npx vitest run test/flows.test.ts`, beside the old ones once there is a release.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { flowBundle } from '../workers/bundle.ts';
import { type RecordedHistory, readHistory, recordedHistories } from './histories.ts';

let home: string;
let codePath: string;

beforeAll(async () => {
  Runtime.install({ logger: new DefaultLogger('ERROR', () => {}) });
  home = await mkdtemp(path.join(os.tmpdir(), 'sluice-replay-'));
  codePath = await flowBundle(home);
}, 60_000);

afterAll(() => rm(home, { recursive: true, force: true }));

const replay = ({ history, workflowId }: RecordedHistory) =>
  Worker.runReplayHistory({ workflowBundle: { codePath }, replayName: workflowId }, readHistory(history), workflowId);

describe('recorded histories', () => {
  const all = recordedHistories();

  it.each(all)('$name replays', async (recorded) => {
    await replay(recorded);
  });

  it('hold no secret and nothing of a machine', () => {
    for (const { name, history } of all) {
      const text = JSON.stringify(history, (_key, value) => decoded(value));
      expect(text, name).not.toMatch(/hunter2|password|postgres(ql)?:\/\/|\/root\/|\/home\/|\/work\/|\/tmp\/|@vm/i);
    }
  });

  it('would not replay if an activity were another', async () => {
    const recorded = structuredClone(all.find((it) => it.name === 'snapshot')!);
    const text = JSON.stringify(recorded.history).replaceAll('"prepareSource"', '"releaseTables"');
    await expect(replay({ ...recorded, history: JSON.parse(text) })).rejects.toThrow(/nondeterminism/i);
  });
});

/** Payloads are base64: what they hold must be looked at too. */
function decoded(value: unknown): unknown {
  if (typeof value !== 'string' || !/^[A-Za-z0-9+/]{8,}={0,2}$/.test(value)) return value;
  return Buffer.from(value, 'base64').toString('utf8');
}
