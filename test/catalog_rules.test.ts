/** Declared rules and checks in the catalog: on a real Temporal and ClickHouse, through Temporal's own messages. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { WithStartWorkflowOperation } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOwnTables, saveSchema } from '../activities/load/batches.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { loadRules, storeRules } from '../activities/transform/rule_store.ts';
import { catalogMessages, catalogWorkflowId, flowNames } from '../model/messages.ts';
import type { RulesAnswer } from '../model/rule_changes.ts';
import type { DeclaredRules } from '../model/rules.ts';
import type { TableSchema } from '../model/table.ts';
import { findTemporal } from '../workers/embedded/temporal_binary.ts';
import { askFlow, connectTemporal, updateFlow, updateWithStart } from '../workers/temporal_client.ts';
import { type ControlStack, startControlStack } from './control_stack.ts';
import { recordHistory } from './histories.ts';

let stack: ControlStack;
let clickhouse: ClickHouse;
let client: Awaited<ReturnType<typeof connectTemporal>>;

beforeAll(async () => {
  stack = await startControlStack();
  clickhouse = new ClickHouse({ url: stack.parts.clickhouse.url, database: 'sluice', role: 'write' });
  client = await connectTemporal({ temporalAddress: stack.parts.temporal.url, temporalNamespace: 'default' });
  await createOwnTables(clickhouse);
  await clickhouse.command(`CREATE TABLE ${clickhouse.name('main_accounts')} (id Int64) ENGINE = Memory`);
  await saveSchema(clickhouse, 'main', accounts as unknown as TableSchema, 1);
  // What nobody has a copy of any more says nothing.
  await saveSchema(
    clickhouse,
    'main',
    { ...accounts, asset_id: 'main_gone', columns: [] } as unknown as TableSchema,
    1,
  );
}, 120_000);

afterAll(async () => {
  await client?.connection.close();
  await clickhouse?.close();
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

const accounts = {
  asset_id: 'main_accounts',
  schema: 'public',
  table: 'accounts',
  columns: [
    { name: 'id', type: 'bigint' },
    { name: 'email', type: 'text' },
  ],
  leftOut: [{ attnum: 3, name: 'pin', why: 'excluded' }],
};

/** The `temporal` command on this stack's server. */
async function cli(...args: string[]): Promise<{ stdout: string; stderr: string; code: number }> {
  const temporal = await findTemporal(() => {});
  const command = [...args, '--address', stack.parts.temporal.url];
  return { ...(await promisify(execFile)(temporal, command, { maxBuffer: 64 << 20 })), code: 0 };
}

const update = (name: string, input: unknown) => updateFlow<RulesAnswer>(client, catalogWorkflowId, name, input);
const mask = {
  rule_id: 'mask',
  rule_type: 'map',
  assets: ['main_*'],
  target_field: 'm',
  expression: '{{ email[:1] }}',
};
const check = { rule_id: 'there', asset: 'main_accounts', field: 'email', rule_type: 'not_null' };

describe('the catalog', () => {
  it('takes rules and checks, each change a version that is kept', async () => {
    const first = await update(catalogMessages.putRule, { rule: mask, mode: 'create', by: 'somebody' });
    expect(first).toEqual({
      version: 1,
      changes: [{ what: 'rule', rule_id: 'mask', how: 'added' }],
      rule: { ...mask, version: 1 },
    });
    // The same again, in another order of keys: nothing changes.
    const { rule_id, ...rest } = mask;
    expect(await update(catalogMessages.putRule, { rule: { ...rest, rule_id }, mode: 'create' })).toMatchObject({
      version: 1,
      changes: [],
    });
    const second = await update(catalogMessages.putCheck, { check });
    expect(second).toMatchObject({ version: 2, check: { parameters: {}, severity: 'warn', version: 1 } });
    const third = await update(catalogMessages.putRule, { rule: { ...mask, target_field: 'n' }, mode: 'replace' });
    expect(third).toMatchObject({ version: 3, rule: { version: 2 } });
    expect((await loadRules(clickhouse)).rules).toEqual([{ ...mask, target_field: 'n', version: 2 }]);
    expect(await loadRules(clickhouse, 1)).toEqual({ version: 1, rules: [{ ...mask, version: 1 }], checks: [] });
    const kept = await clickhouse.rows(
      `SELECT changed_by, change FROM ${clickhouse.name('_rules')} FINAL ORDER BY version`,
    );
    expect(kept).toEqual([
      { changed_by: 'somebody', change: 'rule mask added' },
      { changed_by: 'Temporal', change: 'check there added' },
      { changed_by: 'Temporal', change: 'rule mask replaced' },
    ]);
    const known = await askFlow<DeclaredRules>(client, catalogWorkflowId, catalogMessages.rules);
    expect(known).toMatchObject({ version: 3, rules: [{ rule_id: 'mask' }] });
  });

  it('does one change at a time', async () => {
    const ids = ['a', 'b', 'c', 'd'];
    const answers = await Promise.all(
      ids.map((id) => update(catalogMessages.putRule, { rule: { ...mask, rule_id: id, target_field: id } })),
    );
    expect(answers.map(({ version }) => version).sort()).toEqual([4, 5, 6, 7]);
    expect((await loadRules(clickhouse)).rules.map(({ rule_id }) => rule_id).sort()).toEqual([...ids, 'mask']);
    for (const rule_id of ids) await update(catalogMessages.removeRule, { rule_id });
    expect(await loadRules(clickhouse)).toMatchObject({ version: 11, rules: [{ rule_id: 'mask' }] });
  });

  it('refuses what is wrong, and keeps what there was', async () => {
    const put = (rule: object, mode = 'either') =>
      update(catalogMessages.putRule, { rule: { ...mask, ...rule }, mode });
    await expect(put({ expresion: 1 })).rejects.toMatchObject({
      kind: 'configuration',
      message: expect.stringContaining('/expresion: unknown key'),
    });
    await expect(put({ expression: '{{ emial }}' })).rejects.toMatchObject({
      kind: 'configuration',
      message: '/expression: for main_accounts: line 1, column 4: there is no column "emial": did you mean "email"?',
      cause: {
        details: [expect.anything(), [expect.objectContaining({ pointer: '/expression', line: 1, column: 4 })]],
      },
    });
    await expect(put({}, 'create')).rejects.toMatchObject({ kind: 'conflict' });
    await expect(put({ rule_id: 'none' }, 'replace')).rejects.toMatchObject({ kind: 'not_found' });
    await expect(update(catalogMessages.removeCheck, { rule_id: 'none' })).rejects.toMatchObject({ kind: 'not_found' });
    await expect(update(catalogMessages.removeRule, { id: 'none' })).rejects.toMatchObject({ kind: 'configuration' });
    await expect(update(catalogMessages.putRule, { rule: mask, mode: 'mend' })).rejects.toMatchObject({
      kind: 'configuration',
    });
    // A rule of what a table leaves out may read it.
    const secret = { ...mask, rule_id: 'secret', target_field: 's', expression: '{{ pin[:1] }}' };
    expect((await update(catalogMessages.putRule, { rule: secret })).version).toBe(12);
    // A later rule would lack what an earlier one fills.
    const later = {
      ...mask,
      rule_id: 'later',
      target_field: 'l',
      source_fields: ['s'],
      expression: '{{ s }}',
      assets: ['main_accounts'],
    };
    await update(catalogMessages.putRule, { rule: later });
    await expect(update(catalogMessages.removeRule, { rule_id: 'secret' })).rejects.toMatchObject({
      message: expect.stringContaining('rule later: source_fields names s'),
    });
    const { rules } = await loadRules(clickhouse);
    expect(rules.map(({ rule_id }) => rule_id)).toEqual(['mask', 'secret', 'later']);
  });

  it('makes the set as whole lists say', async () => {
    const answer = await update(catalogMessages.applyRules, { rules: [mask], prune: true, by: 'a file' });
    expect(answer).toEqual({
      version: 14,
      changes: [
        { what: 'rule', rule_id: 'mask', how: 'replaced' },
        { what: 'rule', rule_id: 'secret', how: 'removed' },
        { what: 'rule', rule_id: 'later', how: 'removed' },
      ],
    });
    expect(await update(catalogMessages.applyRules, { rules: [mask], prune: true })).toEqual({
      version: 14,
      changes: [],
    });
    expect((await loadRules(clickhouse)).checks).toHaveLength(1);
  });

  it('reads the set again when somebody else has changed it', async () => {
    const { rules, checks } = await loadRules(clickhouse);
    await storeRules(clickhouse, { version: 15, rules, checks: [] }, { by: 'another catalog', change: 'a test' });
    const answer = await update(catalogMessages.putCheck, { check: { ...check, severity: 'reject' } });
    expect(answer).toMatchObject({ version: 16, check: { version: 1 } });
    expect(checks).toHaveLength(1);
    if (process.env.RECORD_HISTORIES) await recordHistory({ cli }, catalogWorkflowId, 'rules');
  });

  it('is made again from ClickHouse when it is lost', async () => {
    await client.workflow.getHandle(catalogWorkflowId).terminate('a test');
    const start = new WithStartWorkflowOperation(flowNames.catalog, {
      workflowId: catalogWorkflowId,
      taskQueue: 'sluice',
      args: [],
      workflowIdConflictPolicy: 'USE_EXISTING',
    });
    const answer = await updateWithStart<RulesAnswer>(client, start, catalogMessages.removeCheck, { rule_id: 'there' });
    expect(answer.version).toBe(17);
    expect(await loadRules(clickhouse)).toMatchObject({ rules: [{ rule_id: 'mask', version: 3 }], checks: [] });
  });

  it('tells the flows of its sources', async () => {
    const source = { id: 'main', type: 'postgresql', connection_string: '${DATABASE_URL}' };
    await updateFlow(client, catalogWorkflowId, catalogMessages.registerSource, source);
    // There is no such flow: the change is made all the same.
    expect((await update(catalogMessages.putCheck, { check })).version).toBe(18);
    const { events } = await client.workflow.getHandle(catalogWorkflowId).fetchHistory();
    const told = events!.filter((event) => event.signalExternalWorkflowExecutionInitiatedEventAttributes);
    expect(told.map((event) => event.signalExternalWorkflowExecutionInitiatedEventAttributes)).toMatchObject([
      { workflowExecution: { workflowId: 'capture/main' }, signalName: 'rulesChanged' },
    ]);
  });
});
