/** Batch records: listed for people, and proven to be whole. */
import { openSource } from '../../activities/capture/source.ts';
import { type AuditFault, type AuditResult, auditSource, type Passed } from '../../activities/lineage/audit.ts';
import { lastRecord, readRecords } from '../../activities/load/batches.ts';
import { tableAssetOf } from '../../model/asset.ts';
import { asSluiceError, SluiceError } from '../../model/errors.ts';
import type { SourceType } from '../../model/source.ts';
import { type Control, workflowUrl } from './control.ts';
import { ifThere, noTableYet, rowsIfThere } from './figures.ts';
import { lookAtLog } from './log.ts';
import type { AuditAnswer, AuditQuery } from './shapes.ts';
import { registered } from './sources.ts';

/** Where a page of records ends. */
type Place = [recordedAt: string, lease: number, seq: number, id: string];

/** Batch records, the newest first. Errors: `configuration` for a cursor that is none. */
export async function listAudit(control: Control, wanted: AuditQuery): Promise<AuditAnswer> {
  const { source, from, to, limit = 100 } = wanted;
  const asset = wanted.asset === undefined ? undefined : tableAssetOf(wanted.asset);
  const place = wanted.cursor === undefined ? undefined : readCursor(wanted.cursor);
  const conditions = [
    'true',
    source === undefined ? '' : 'source = {source:String}',
    asset === undefined ? '' : 'JSONHas(assets, {asset:String})',
    from === undefined ? '' : `recorded_at >= ${instant('from')}`,
    to === undefined ? '' : `recorded_at < ${instant('to')}`,
    place === undefined
      ? ''
      : `(recorded_at, lease, seq, id) < (${instant('at')}, {lease:UInt64}, {seq:UInt64}, {id:String})`,
  ];
  const [at, lease, seq, id] = place ?? [];
  const params = { source, asset, from, to, at, lease, seq, id };
  const given = Object.fromEntries(Object.entries(params).filter(([, value]) => value !== undefined));
  const order = 'recorded_at DESC, lease DESC, seq DESC, id DESC';
  const where = conditions.filter(Boolean).join(' AND ');
  const end = at ?? to ?? new Date().toISOString();
  let records: Awaited<ReturnType<typeof readRecords>> = [];
  for (const days of [...lookedBack, undefined]) {
    const lately = days === undefined ? '' : ` AND recorded_at >= ${instant('end')} - INTERVAL ${days * 24} HOUR`;
    const params = { ...given, ...(lately && { end }) };
    const read = () => readRecords(control.clickhouse, where + lately, params, order, limit + 1);
    records = (await ifThere(read)) ?? [];
    if (records.length > limit) break;
  }
  const items = records.slice(0, limit).map(({ workflow_id, run_id, ...record }) => ({
    ...record,
    workflow:
      workflow_id === '' ? null : { id: workflow_id, run_id, url: workflowUrl(control.settings, workflow_id, run_id) },
  }));
  const last = records.length > limit ? items.at(-1) : undefined;
  return { items, next_cursor: last ? cursorAt([last.recorded_at, last.lease, last.seq, last.id]) : null };
}

/** Days before the newest that is wanted: most who look want a page of what was lately, and there may be years. */
const lookedBack = [1 / 24, 1, 30];

const instant = (name: string): string => `parseDateTime64BestEffort({${name}:String}, 6, 'UTC')`;

function cursorAt(place: Place): string {
  return Buffer.from(JSON.stringify(place)).toString('base64url');
}

function readCursor(cursor: string): Place {
  try {
    const [at, lease, seq, id] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as Place;
    const numbers = [lease, seq].every((number) => Number.isSafeInteger(number) && number >= 0);
    if (numbers && typeof id === 'string' && !Number.isNaN(Date.parse(at))) return [at, lease, seq, id];
  } catch {}
  throw new SluiceError('configuration', 'the cursor is none of this list', 'Take next_cursor of the page before.');
}

/**
 * Proves that the records of a source, or of all that have any, are whole: nothing changed, missing or unaccounted for, no
 * gap, and the source acknowledged no further than what is recorded. `since`: only leases that ran at that time or later.
 * What cannot be looked at counts as a fault. Errors: `not_found` for a source without records.
 */
export async function checkAudit(
  control: Control,
  wanted: { source?: string; since?: string },
): Promise<AuditResult[]> {
  const types = await registeredTypes(control);
  const recorded = await rowsIfThere<{ source: string }>(
    control,
    `SELECT DISTINCT source FROM ${control.clickhouse.name('_batches')} ORDER BY source`,
  );
  const all = [...new Set([...recorded.map((row) => row.source), ...types.keys()])].sort();
  const chosen = wanted.source === undefined ? all : all.filter((id) => id === wanted.source);
  if (wanted.source !== undefined && chosen.length === 0) {
    const remedy = `Records there are of ${all.slice(0, 20).join(', ') || 'no source yet'}.`;
    throw new SluiceError('not_found', `there are no records of ${wanted.source}`, remedy, { source: wanted.source });
  }
  const results: AuditResult[] = [];
  for (const source of chosen) results.push(await checkSource(control, source, types.get(source), wanted.since));
  return results;
}

/** Types of the connected sources. */
async function registeredTypes(control: Control): Promise<Map<string, SourceType>> {
  return new Map((await registered(control)).map(({ id, type }) => [id, type]));
}

async function checkSource(
  control: Control,
  source: string,
  type: SourceType | undefined,
  since: string | undefined,
): Promise<AuditResult> {
  // Removed sources are read too: their positions look as those of the only kind that there is.
  const reader = await openSource(type ?? 'postgresql');
  const passed: Passed = (position, target) => {
    try {
      return reader.passed(position, target);
    } catch {
      return position === target;
    }
  };
  // Before the records: what is acknowledged now must be recorded by then.
  const acknowledged = type === undefined ? null : await lookAtSlot(control, source);
  const none = { source, records: 0, leases: 0, from: null, to: null, effects: 0, released: 0, faults: [], notes: [] };
  const result = await auditSource(control.clickhouse, source, passed, since).catch((error: unknown) => {
    if (noTableYet(error)) return none;
    throw error;
  });
  if (acknowledged === null || result.leases === 0) return result;
  return { ...result, faults: [...result.faults, ...(await slotFaults(control, source, acknowledged, passed))] };
}

type SlotLook = { acknowledged: string | null; danger: string | null } | { error: SluiceError };

async function lookAtSlot(control: Control, source: string): Promise<SlotLook> {
  try {
    return (await lookAtLog(control, source)).state;
  } catch (error) {
    return { error: asSluiceError(error) };
  }
}

async function slotFaults(control: Control, source: string, look: SlotLook, passed: Passed): Promise<AuditFault[]> {
  if ('error' in look) {
    const detail = `what the source acknowledged could not be asked: ${look.error.message}`;
    return [{ fault: 'unproven', batch: '', detail }];
  }
  const record = await lastRecord(control.clickhouse, source);
  const faults: AuditFault[] =
    look.danger === null ? [] : [{ fault: 'slot', batch: record?.id ?? '', detail: look.danger }];
  if (look.acknowledged !== null && record && !passed(record.position_to, look.acknowledged)) {
    const detail = `the source believes all up to ${look.acknowledged} to be stored, and the last record ends at ${record.position_to}`;
    faults.push({ fault: 'slot', batch: record.id, detail });
  }
  return faults;
}
