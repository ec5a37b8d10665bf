/** What people and programs told flows directly, by Temporal's UI or CLI: read from the histories that Temporal keeps. */
import type { WorkflowHandle } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';
import { tsToMs } from '@temporalio/common/lib/time.js';
import type { Action } from '../../activities/load/actions.ts';
import { redact } from '../../activities/secrets.ts';
import { catalogWorkflowId, flowNames } from '../../model/messages.ts';
import type { Control } from './control.ts';
import { bounded } from './temporal.ts';

type Events = NonNullable<Awaited<ReturnType<WorkflowHandle['fetchHistory']>>['events']>;
type Event = Events[number];
type Payloads = Parameters<typeof defaultPayloadConverter.fromPayload>[0][];

/** Runs of flows that are looked at, the newest: people speak to few, and those live long. */
const mostRuns = 200;
const patience = 10_000;

/** What flows and activities tell each other: nobody asked for it. */
const internal = new Set([
  'tablesDefined',
  'announceSource',
  'forgetSource',
  'snapshotProgress',
  'registerSource',
  'removeSource',
  'look',
  'plan',
  'checkRules',
  'rulesChanged',
]);

/** Messages, starts, cancellations and terminations, by whomever. Of a run that cannot be read, none. */
export async function peoplesMessages(control: Control): Promise<Action[]> {
  const types = [
    flowNames.captureSource,
    flowNames.catalog,
    flowNames.verifyCopy,
    flowNames.backfill,
    flowNames.extractAssets,
  ];
  const query = `WorkflowType IN (${types.map((type) => `'${type}'`).join(', ')})`;
  const runs = await bounded(
    control,
    'the list of flows',
    async () => {
      const found: { workflowId: string; runId: string }[] = [];
      for await (const { workflowId, runId } of control.temporal.workflow.list({ query, pageSize: mostRuns })) {
        found.push({ workflowId, runId });
        if (found.length === mostRuns) break;
      }
      return found;
    },
    patience,
  );
  const read = await Promise.all(runs.map((run) => actionsOf(control, run).catch(() => [])));
  return read.flat();
}

async function actionsOf(control: Control, run: { workflowId: string; runId: string }): Promise<Action[]> {
  const handle = control.temporal.workflow.getHandle(run.workflowId, run.runId);
  const { events } = await control.temporal.withDeadline(Date.now() + patience, () => handle.fetchHistory());
  return messagesIn(events ?? [], run.workflowId, run.runId);
}

/** What one history tells. */
export function messagesIn(events: Events, workflow: string, run: string): Action[] {
  const updates = new Map<string, Action>();
  const found: Action[] = [];
  for (const event of events) {
    const message = messageIn(event);
    if (message && !internal.has(message.action)) {
      const { identity, action, payloads, ends } = message;
      const at = new Date(tsToMs(event.eventTime)).toISOString();
      const input = inputOf(payloads);
      const common = { ...callerOf(identity), action, target: targetOf(workflow, input), input };
      const waits = ends === undefined;
      const one: Action = {
        id: `${run}/${event.eventId}`,
        at,
        ...common,
        outcome: waits ? 'running' : 'done',
        reason: '',
        milliseconds: 0,
      };
      if (waits) updates.set(message.updateId ?? '', one);
      found.push(one);
    }
    const ended = event.workflowExecutionUpdateCompletedEventAttributes;
    const update = ended && updates.get(ended.meta?.updateId ?? '');
    if (!update) continue;
    const failure = ended.outcome?.failure;
    update.outcome = failure ? 'failed' : 'done';
    update.reason = redact(failure?.message ?? '').slice(0, 1000);
    update.milliseconds = tsToMs(event.eventTime) - Date.parse(update.at);
  }
  return found;
}

interface Message {
  identity: string;
  action: string;
  payloads: Payloads;
  /** Set when nothing more follows of it. */
  ends?: true;
  updateId?: string;
}

function messageIn(event: Event): Message | undefined {
  const update = event.workflowExecutionUpdateAcceptedEventAttributes?.acceptedRequest;
  if (update) {
    const { identity, updateId } = update.meta ?? {};
    return {
      identity: identity ?? '',
      action: update.input?.name ?? '',
      payloads: update.input?.args?.payloads ?? [],
      updateId: updateId ?? '',
    };
  }
  const signal = event.workflowExecutionSignaledEventAttributes;
  if (signal) {
    const payloads = signal.input?.payloads ?? [];
    return { identity: signal.identity ?? '', action: signal.signalName ?? '', payloads, ends: true };
  }
  const asked = event.workflowExecutionCancelRequestedEventAttributes;
  if (asked) return { identity: asked.identity ?? '', action: 'cancel', payloads: [], ends: true };
  const killed = event.workflowExecutionTerminatedEventAttributes;
  if (killed) return { identity: killed.identity ?? '', action: 'terminate', payloads: [], ends: true };
  const begun = event.workflowExecutionStartedEventAttributes;
  // What a schedule, a parent or a run before has started, nobody asked for just now; what we start is part of another action.
  const chained = begun?.continuedExecutionRunId || begun?.parentWorkflowExecution;
  const byItself = chained || !begun?.identity || begun.identity.startsWith('sluice-');
  if (byItself || begun.searchAttributes?.indexedFields?.TemporalScheduledById) return undefined;
  const { workflowType, identity, input } = begun;
  return {
    identity: identity ?? '',
    action: `start ${workflowType?.name}`,
    payloads: input?.payloads ?? [],
    ends: true,
  };
}

/** Our own identities say how they came; any other is of Temporal's UI or CLI, or of a program. */
function callerOf(identity: string): Pick<Action, 'via' | 'who'> {
  const [, via, who] = /^sluice-(rest|cli|configuration|worker):(.*)@[^@]*$/.exec(identity) ?? [];
  return via === undefined ? { via: 'temporal', who: identity || 'unknown' } : { via, who: who ?? '' };
}

/** `capture/{source}` and `{deployment}/…` are about what they name, messages to the catalog about their subject, rule or check. */
function targetOf(workflow: string, input: Record<string, unknown>): string {
  if (workflow === catalogWorkflowId) {
    const { subject, rule_id, rule, check } = input as Record<string, { rule_id?: unknown } | undefined>;
    const named = [subject, rule_id, rule?.rule_id, check?.rule_id].find((name) => typeof name === 'string');
    return named === undefined ? workflow : String(named);
  }
  const [first = '', second] = workflow.split('/');
  return ['capture', 'verify', 'backfill', 'snapshot', 'log'].includes(first) && second ? second : first;
}

const longestInput = 4_000;

/** The first argument, when it is small, without connection strings. */
function inputOf(payloads: Payloads): Record<string, unknown> {
  const [payload] = payloads;
  if (!payload) return {};
  try {
    const value: unknown = defaultPayloadConverter.fromPayload(payload);
    if (value === null || value === undefined) return {};
    const text = redact(JSON.stringify(value, (key, inner) => (key === 'connection_string' ? undefined : inner)));
    if (text.length > longestInput) return { bytes: text.length };
    const read: unknown = JSON.parse(text);
    return typeof read === 'object' && read !== null && !Array.isArray(read)
      ? (read as Record<string, unknown>)
      : { value: read };
  } catch {
    return {};
  }
}
