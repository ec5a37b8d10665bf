/** Prometheus metrics, computed when they are asked for: what no longer exists has no stale series. */
import { collectDefaultMetrics, Registry } from 'prom-client';
import { batchBuckets } from '../../activities/load/sums.ts';
import { type VerifyFigures, verifyFigures } from './alarms.ts';
import type { Control } from './control.ts';
import { assetFigures, batchSeconds, ruleFigures } from './figures.ts';
import { newestScores } from './quality.ts';
import { listSources } from './sources.ts';
import { requireWorker } from './temporal.ts';

const own = new Registry();
collectDefaultMetrics({ register: own });

const ops = ['inserts', 'updates', 'deletes', 'truncates'] as const;

interface Sample {
  suffix?: string;
  labels: Record<string, string>;
  value: number;
}

/** The page of `/metrics`. What cannot be read now is left out, and `sluice_up` says so. */
export async function metricsPage(control: Control): Promise<string> {
  const asked = await Promise.allSettled([recordMetrics(control), sourceMetrics(control)]);
  const parts = asked.map((part) => (part.status === 'fulfilled' ? part.value : ''));
  const up = family('sluice_up', 'gauge', '1 when Temporal, worker and ClickHouse answered', [
    { labels: {}, value: asked.every((part) => part.status === 'fulfilled') ? 1 : 0 },
  ]);
  return [up, ...parts, await own.metrics()].filter(Boolean).join('\n');
}

async function recordMetrics(control: Control): Promise<string> {
  const [assets, batches, verified, scores, rules] = await Promise.all([
    assetFigures(control),
    batchSeconds(control),
    verifyFigures(control),
    newestScores(control),
    ruleFigures(control),
  ]);
  const ofCopies = (value: (one: VerifyFigures) => number): Sample[] =>
    verified.map((one) => ({ labels: { source: one.source, asset: one.asset }, value: value(one) }));
  const changes = assets.flatMap((asset) =>
    ops.map((op) => ({ labels: { source: asset.source, asset: asset.asset, op: op.slice(0, -1) }, value: asset[op] })),
  );
  const rejected = assets.map(({ source, asset, rejected: value }) => ({ labels: { source, asset }, value }));
  const seconds = batches.flatMap(({ source, count, sum, buckets: counted }) => [
    ...counted.map((value, index) => ({
      suffix: '_bucket',
      labels: { source, le: String(batchBuckets[index]) },
      value,
    })),
    { suffix: '_bucket', labels: { source, le: '+Inf' }, value: count },
    { suffix: '_sum', labels: { source }, value: sum },
    { suffix: '_count', labels: { source }, value: count },
  ]);
  return [
    family('sluice_changes_total', 'counter', 'Changes recorded as written', changes),
    family('sluice_rejected_total', 'counter', 'Rows held back', rejected),
    family(
      'sluice_verify_differences_total',
      'counter',
      'Rows of copies that comparisons found to differ',
      ofCopies((one) => one.differing_total),
    ),
    family(
      'sluice_verify_repaired_total',
      'counter',
      'Rows that were repaired',
      ofCopies((one) => one.repaired_total),
    ),
    family(
      'sluice_verify_differing',
      'gauge',
      'Rows that differed at the last comparison, and still do',
      ofCopies((one) => (one.outdated ? 0 : one.differing - one.repaired)),
    ),
    family(
      'sluice_verify_timestamp_seconds',
      'gauge',
      'When the last comparison ended',
      ofCopies((one) => Date.parse(one.at) / 1000),
    ),
    family(
      'sluice_transform_total',
      'counter',
      'Rows that rules and checks looked at, by what became of them',
      rules.flatMap(({ rule, ...outcomes }) =>
        Object.entries(outcomes).map(([outcome, value]) => ({ labels: { rule, outcome }, value })),
      ),
    ),
    family(
      'sluice_quality_score',
      'gauge',
      'Rows that passed all checks / rows checked, at the last look',
      scores.map(({ asset, score }) => ({ labels: { asset }, value: score })),
    ),
    family('sluice_batch_seconds', 'histogram', 'From the first change of a batch to its record', seconds),
  ].join('\n');
}

async function sourceMetrics(control: Control): Promise<string> {
  await requireWorker(control);
  const sources = await listSources(control);
  const known = (value: number | null | undefined, source: string): Sample[] =>
    typeof value === 'number' ? [{ labels: { source }, value }] : [];
  const states = sources.map(({ id, status }) => ({ labels: { source: id, status }, value: 1 }));
  const tables = sources.flatMap(({ id, tables: all }) =>
    all.flatMap((table) =>
      table.rows === null ? [] : [{ labels: { source: id, asset: table.asset_id }, value: table.rows }],
    ),
  );
  const ofLog = (name: 'retained_bytes' | 'limit_bytes' | 'limit_in_seconds') =>
    sources.flatMap((one) => known(one.log?.[name], one.id));
  return [
    family('sluice_source_state', 'gauge', 'The state that each source is in', states),
    family(
      'sluice_lag_seconds',
      'gauge',
      'Age of the oldest change not yet stored',
      sources.flatMap((one) => known(one.lag_seconds, one.id)),
    ),
    family(
      'sluice_lag_bytes',
      'gauge',
      'Log of the source not yet stored',
      sources.flatMap((one) => known(one.lag_bytes, one.id)),
    ),
    family('sluice_slot_retained_bytes', 'gauge', 'Log that the slot keeps in the source', ofLog('retained_bytes')),
    family('sluice_slot_limit_bytes', 'gauge', 'Log that it may keep', ofLog('limit_bytes')),
    family('sluice_slot_limit_seconds', 'gauge', 'When it keeps so much, as it grows now', ofLog('limit_in_seconds')),
    family(
      'sluice_alarms',
      'gauge',
      'What wants to be looked at, by kind',
      sources.flatMap((one) =>
        countKinds(
          one.alarms.map(({ kind }) => kind),
          one.id,
        ),
      ),
    ),
    family('sluice_copy_rows', 'gauge', 'Rows of the copy', tables),
  ].join('\n');
}

function countKinds(kinds: string[], source: string): Sample[] {
  return [...new Set(kinds)].map((kind) => ({
    labels: { source, kind },
    value: kinds.filter((other) => other === kind).length,
  }));
}

/** One family in the text format; nothing without samples. */
export function family(name: string, type: 'counter' | 'gauge' | 'histogram', help: string, samples: Sample[]): string {
  if (samples.length === 0) return '';
  const lines = samples.map(({ suffix = '', labels, value }) => {
    const inner = Object.entries(labels)
      .map(([key, text]) => `${key}="${escapeLabel(text)}"`)
      .join(',');
    return `${name}${suffix}${inner ? `{${inner}}` : ''} ${value}`;
  });
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines, ''].join('\n');
}

function escapeLabel(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
