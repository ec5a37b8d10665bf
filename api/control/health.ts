/** Is everything there, and does it move? */
import { loadavg } from 'node:os';
import { asSluiceError } from '../../model/errors.ts';
import type { Control } from './control.ts';
import type { DeploymentAnswer } from './deployment_shapes.ts';
import { listDeployments } from './deployments.ts';
import { isFailing, isFailingDeployment } from './pipeline.ts';
import type { HealthAnswer, SourceAnswer } from './shapes.ts';
import { listSources } from './sources.ts';
import { requireWorker } from './temporal.ts';

type Problem = HealthAnswer['problems'][number];

/** Looks at every part; never throws. `down` = Temporal, ClickHouse or the worker is away. */
export async function checkHealth(control: Control): Promise<HealthAnswer> {
  const problems: Problem[] = [];
  const note = (check: string) => (error: unknown) => {
    problems.push({ check, ...asSluiceError(error).report() });
    return false as const;
  };
  const [clickhouse, answers] = await Promise.all([
    control.clickhouse.rows('SELECT 1', { signal: AbortSignal.timeout(2_000) }).then(() => true, note('clickhouse')),
    requireWorker(control).then(() => true, note('worker')),
  ]);
  const [listed, deployed] = answers
    ? await Promise.all([
        listSources(control).catch(note('sources')),
        listDeployments(control).catch(note('deployments')),
      ])
    : [];
  const sources = listed || [];
  const deployments = deployed || [];
  const temporal = !rename(problems, 'temporal_unreachable', 'temporal');
  const worker = temporal && answers && !rename(problems, 'no_worker', 'worker');
  for (const source of sources) problems.push(...sourceProblems(source));
  for (const deployment of deployments) problems.push(...deploymentProblems(deployment));
  const down = !clickhouse || !worker;
  return {
    status: down ? 'down' : problems.length > 0 ? 'degraded' : 'ok',
    checks: {
      temporal: temporal ? 'ok' : 'down',
      clickhouse: clickhouse ? 'ok' : 'down',
      worker: worker ? 'ok' : 'down',
      sources: Object.fromEntries(sources.map((source) => [source.id, source.status])),
      transform: worker ? 'ok' : 'down',
      memory: { rss_bytes: process.memoryUsage.rss() },
      cpu: { load: loadavg()[0] ?? 0 },
    },
    problems,
  };
}

/** Puts errors that tell of a part under that part's name; true when there are any. */
function rename(problems: Problem[], kind: Problem['kind'], check: string): boolean {
  const told = problems.filter((problem) => problem.kind === kind);
  for (const problem of told) problem.check = check;
  return told.length > 0;
}

function sourceProblems(source: SourceAnswer): Problem[] {
  const check = `sources.${source.id}`;
  const alarms = source.alarms.map((alarm) => ({ check, ...alarm }));
  if (!isFailing(source)) return alarms;
  const tables = source.tables.flatMap((table) =>
    table.error ? [{ check: `${check}.${table.table}`, ...table.error }] : [],
  );
  return [...(source.last_error ? [{ check, ...source.last_error }] : []), ...tables, ...alarms];
}

function deploymentProblems(deployment: DeploymentAnswer): Problem[] {
  const { name, last_error: error } = deployment;
  return error && isFailingDeployment(deployment) ? [{ check: `deployments.${name}`, ...error }] : [];
}
