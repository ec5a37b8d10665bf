/** Deployments: a flow with parameters and a schedule. A file each in deployments/, a Temporal schedule each. */
import { readExtractParameters, type Wrong } from './extract.ts';

/** What happens when a run is due while the one before still runs. */
export const overlapPolicies = ['skip', 'buffer_one', 'buffer_all', 'cancel_other', 'allow_all'] as const;
export type OverlapPolicy = (typeof overlapPolicies)[number];

/** `interval` as `15m`, counted from 1970; or `cron` in a time zone. */
export type DeploymentSchedule = { interval: string } | { cron: string; timezone: string };

/** A deployment file, with its defaults. */
export interface Deployment {
  name: string;
  description: string;
  /** Workflow type; one of `deployableFlows`. */
  flow: string;
  /** None = only by hand. */
  schedule: DeploymentSchedule[];
  parameters: Record<string, unknown>;
  tags: string[];
  /** Undefined = the one of this installation. */
  task_queue?: string;
  overlap: OverlapPolicy;
  /** Runs that were due while Temporal was away are made up for when they are not older, e.g. `1h`. */
  catchup_window: string;
  /** Undefined = as people left it. */
  paused?: boolean;
}

export interface DeployableFlow {
  /** The parameters with their defaults, or what `wrong` makes. */
  read: (parameters: unknown, wrong: Wrong) => object;
  /** The flow's input. */
  input: (deployment: string, parameters: object) => object;
  /** True when a run stands for an interval, so that it can be backfilled. */
  intervals: boolean;
}

/** The flows that can be deployed, by workflow type. */
export const deployableFlows: Record<string, DeployableFlow> = {
  extractAssets: {
    read: (parameters, wrong) => readExtractParameters(parameters, wrong),
    input: (deployment, parameters) => ({ deployment, ...parameters }),
    intervals: true,
  },
  verifyCopy: {
    read: readVerifyParameters,
    input: (_deployment, parameters) => parameters,
    intervals: false,
  },
};

/** The flow of that name, if it can be deployed. */
export function deployableFlow(name: string): DeployableFlow | undefined {
  return Object.hasOwn(deployableFlows, name) ? deployableFlows[name] : undefined;
}

function readVerifyParameters(input: unknown, wrong: Wrong): object {
  const example = 'Right is e.g. {"source": "postgres_main"} or {"source": "postgres_main", "table": "accounts"}.';
  const { source, table, ...others } = (input ?? {}) as Record<string, unknown>;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw wrong(`unknown key \`${unknown.slice(0, 40)}\`; known are source, table`, example);
  if (typeof source !== 'string' || source === '') throw wrong('`source` must be the id of a source', example);
  if (table !== undefined && (typeof table !== 'string' || table === ''))
    throw wrong('`table` must be a name', example);
  return table === undefined ? { source } : { source, table };
}

/** Input of the flow `backfill`: intervals of a deployment, or tables of a source. */
export type BackfillRequest =
  | { deployment: string; from: string; to: string; only_missing?: boolean }
  | { source: string; tables?: string[] };

/** Id of a run that somebody asked for, by its nominal time. */
export const runWorkflowId = (deployment: string, nominal: string): string => `${deployment}/${nominal}`;
/** The same with a key of who asked, by which asking again means the same run. No key can be taken for a time. */
export const keyedWorkflowId = (deployment: string, key: string): string => `${deployment}/key/${key}`;
/** What Temporal makes the ids of scheduled runs from: it appends `-` and the nominal time. */
export const scheduledWorkflowId = (deployment: string): string => `${deployment}/`;
export const backfillWorkflowId = (name: string): string => `backfill/${name}`;
