/** Builds the activities of rules and checks for a worker. */
import { Context } from '@temporalio/activity';
import type { Client } from '@temporalio/client';
import type { DeclaredRules } from '../../model/rules.ts';
import type { ShapeIssue } from '../../model/shape_error.ts';
import { CaptureContext, type CaptureSettings } from '../capture/context.ts';
import { createOwnTables, loadKnownSchemas } from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { columnTypes } from '../load/tables.ts';
import type { RuleActivities } from './contract.ts';
import { type KnownTable, newIssues } from './rule_check.ts';
import { loadRules, storeRules } from './rule_store.ts';
import { settleRejects } from './settle_rejects.ts';
import { joinedAssets, readableColumns } from './table_rules.ts';

export function createRuleActivities(options: { settings: CaptureSettings; client: Client }): RuleActivities {
  const context = new CaptureContext(options.settings, options.client);
  const open = () => context.clickhouse('write');
  return {
    readDeclaredRules: async () => {
      // It may be the first that is asked of ClickHouse at all.
      await createOwnTables(open());
      return await loadRules(open());
    },
    checkRules: ({ set }) => checkRules(open(), set),
    declareRules: async ({ set, by, change }) => {
      const issues = await checkRules(open(), set);
      if (issues.length === 0) await storeRules(open(), set, { by, change });
      return issues;
    },
    settleRejects: (request) => {
      const { workflowExecution, attempt } = Context.current().info;
      const by = { id: workflowExecution?.workflowId ?? '', runId: workflowExecution?.runId ?? '', attempt };
      return settleRejects(open(), request, by);
    },
  };
}

async function checkRules(clickhouse: ClickHouse, set: DeclaredRules): Promise<ShapeIssue[]> {
  const joined = await columnTypes(clickhouse, joinedAssets(set));
  const before = await loadRules(clickhouse);
  return newIssues(before, set, await knownTables(clickhouse), joined);
}

/** The tables of all copies, as rules see them. */
export async function knownTables(clickhouse: ClickHouse): Promise<KnownTable[]> {
  const schemas = await loadKnownSchemas(clickhouse);
  return [...schemas].map(([asset, table]) => ({ asset, columns: readableColumns(table) }));
}
