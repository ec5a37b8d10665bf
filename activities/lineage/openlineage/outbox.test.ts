import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Outbox, Undeliverable } from './outbox.ts';
import { type EventType, type RunEvent, runEvent, runIdOf } from './run_event.ts';

let folder: string;
const told: string[] = [];
const pauses = { first: 1, longest: 4 };

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'sluice-outbox-'));
  told.length = 0;
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

function event(type: EventType, run: string): RunEvent {
  const job = { namespace: 'test', name: run };
  const parent = { runId: runIdOf('flow'), job };
  return runEvent(
    type,
    { runId: runIdOf(run), job: { ...job, type: 'CAPTURE' }, parent },
    { at: '2026-01-01T00:00:00Z', inputs: [], outputs: [] },
  );
}

function outboxTo(deliver: (event: RunEvent) => Promise<void>): Outbox {
  return new Outbox({ folder, deliver, warn: (text) => void told.push(text), pauses });
}

const nameOf = ({ eventType, job }: RunEvent) => `${eventType} ${job.name}`;

it('delivers everything, in order, once while nobody dies, whatever fails in between', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(3), { maxLength: 12 }), fc.array(fc.nat(2)), async (sizes, failures) => {
      const got: string[] = [];
      const left = [...failures];
      const outbox = outboxTo(async (one) => {
        await sleep(0);
        if ((left.pop() ?? 0) > 0) throw new Error('not now');
        got.push(nameOf(one));
      });
      const sent: string[] = [];
      for (const size of sizes) {
        for (let i = 0; i <= size; i++) {
          const one = event('RUNNING', `r${sent.length}`);
          sent.push(nameOf(one));
          outbox.send(one);
        }
        if (size % 2) await outbox.delivered();
      }
      await outbox.delivered();
      expect(got).toEqual(sent);
      expect(readdirSync(folder)).toEqual([]);
      outbox.close();
    }),
    { numRuns: 40 },
  );
});

it('leaves on disk what was not delivered, for the next process; runs that died with it are aborted', async () => {
  const first = outboxTo(() => Promise.reject(new Error('the collector is away')));
  for (const [type, run] of [
    ['START', 'a'],
    ['COMPLETE', 'a'],
    ['START', 'b'],
  ] as const)
    first.send(event(type, run));
  await first.settled();
  await sleep(20);
  first.close();
  expect(told[0]).toContain('the collector is away');

  const got: string[] = [];
  const next = outboxTo(async (one) => void got.push(nameOf(one)));
  await next.adopt();
  await next.delivered();
  expect(got.toSorted()).toEqual(['ABORT b', 'COMPLETE a', 'START a', 'START b']);
  expect(got.indexOf('START b')).toBeLessThan(got.indexOf('ABORT b'));
  expect(readdirSync(folder)).toEqual([]);
  next.close();
});

it('does not touch what a living process has, and takes what was cut off by a crash', async () => {
  const living = path.join(folder, `${process.ppid}-aaaaaaaa.ndjson`);
  writeFileSync(living, `${JSON.stringify(event('START', 'theirs'))}\n`);
  writeFileSync(
    path.join(folder, '999999999-bbbbbbbb.ndjson'),
    `${JSON.stringify(event('START', 'whole'))}\n{"eventType":"STA`,
  );
  const got: string[] = [];
  const outbox = outboxTo(async (one) => void got.push(nameOf(one)));
  await outbox.adopt();
  await outbox.delivered();
  expect(got).toEqual(['START whole']);
  expect(existsSync(living)).toBe(true);
  outbox.close();
});

it('leaves out what will never be taken, and goes on', async () => {
  const got: string[] = [];
  const outbox = outboxTo(async (one) => {
    if (one.job.name === 'bad') throw new Undeliverable('422');
    got.push(nameOf(one));
  });
  for (const run of ['good', 'bad', 'better']) outbox.send(event('RUNNING', run));
  await outbox.delivered();
  expect(got).toEqual(['RUNNING good', 'RUNNING better']);
  expect(told).toEqual(['an event was refused, and is left out: 422']);
  outbox.close();
});

it('throws nothing where it cannot write', async () => {
  const file = path.join(folder, 'file');
  writeFileSync(file, '');
  const outbox = new Outbox({ folder: file, deliver: async () => {}, warn: (text) => void told.push(text), pauses });
  outbox.send(event('START', 'x'));
  await outbox.settled();
  await sleep(5);
  expect(told[0]).toContain('an event was lost');
  outbox.close();
});
