/** What depends on the server's version, as other versions than the embedded one would answer; the rest is in test/preflight.test.ts. */
import { expect, it } from 'vitest';
import type { Facts } from './preflight_facts.ts';
import { keepsThroughFailover, serverVersion } from './server_checks.ts';

function facts(version: number, failover = false): Facts {
  const text = `${Math.floor(version / 10_000)}.${version % 10_000}`;
  return { server: { version, version_text: text }, options: { failover } } as unknown as Facts;
}

const codes = (findings: { code: string; blocking: boolean }[]) =>
  findings.map(({ code, blocking }) => [code, blocking]);

it('needs PostgreSQL 14, and 17 to keep the slot through a failover', () => {
  expect(codes(serverVersion(facts(130_014)))).toEqual([['server_version', true]]);
  expect(serverVersion(facts(140_000))).toEqual([]);
  expect(codes(keepsThroughFailover(facts(160_009, true)))).toEqual([['failover_version', true]]);
  expect(keepsThroughFailover(facts(160_009))).toEqual([]);
  expect(keepsThroughFailover(facts(170_000, true))).toEqual([]);
});
