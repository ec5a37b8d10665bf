/** The files of deployments/: read whole and checked, before anything is asked of Temporal. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { sourceId } from '../api/control/shapes.ts';
import { parseCron } from '../model/cron.ts';
import {
  type Deployment,
  type DeploymentSchedule,
  deployableFlow,
  deployableFlows,
  type OverlapPolicy,
  overlapPolicies,
} from '../model/deployment.ts';
import { parseDuration } from '../model/duration.ts';
import { type Place, SluiceError } from '../model/errors.ts';
import { nearest } from '../model/nearest_word.ts';
import { parseWithLines } from './config.ts';

/** A deployment and where it stands. */
export interface DeploymentFile {
  deployment: Deployment;
  file: string;
  /** File and line of one of its keys. */
  placeOf(...keys: PropertyKey[]): Place;
}

/** Temporal looks for missed runs of at least the last ten seconds, whatever it is told. */
const leastCatchup = 10;
const longest = 3650 * 86_400;
const docs = 'See docs/deployments.md.';

/** Adds to an error of zod what to do about it; `shapeMistake` in config.ts shows it. */
function issue(message: string, remedy: string, keys: PropertyKey[] = []) {
  return { code: 'custom' as const, message, path: keys, params: { remedy } };
}

const duration = (least: number) =>
  z.string({ error: 'not a duration such as 30s, 15m, 1h30m or 1d' }).superRefine((text, context) => {
    const seconds = parseDuration(text);
    if (seconds === undefined) context.addIssue(issue('not a duration', 'Write e.g. 30s, 15m, 1h30m or 1d.'));
    else if (seconds < least) context.addIssue(issue(`shorter than ${least}s`, `Write ${least}s or more.`));
    else if (seconds > longest) context.addIssue(issue('longer than ten years', 'Write a shorter one.'));
  });

const cron = z.string().superRefine((text, context) => {
  const read = parseCron(text);
  if ('mistake' in read) context.addIssue(issue(read.mistake, 'Right is e.g. "0 */6 * * *": every six hours.'));
});

const timezone = z.string().superRefine((name, context) => {
  const known = timezoneOf(name);
  if (known === undefined) context.addIssue(issue('no such time zone', 'Right is e.g. UTC or Europe/Berlin.'));
  else if (known !== name) context.addIssue(issue('no such time zone', `Did you mean ${known}?`));
});

/** The name as it must be written; undefined = none. Temporal minds capitals, Node does not. */
function timezoneOf(name: string): string | undefined {
  try {
    const { timeZone } = new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions();
    // An alias has another name here: it stays as it is, and Temporal is asked before anything changes.
    if (!/^[A-Z]/.test(name)) return /^[+-]/.test(name) ? undefined : timeZone;
    return timeZone.toLowerCase() === name.toLowerCase() ? timeZone : name;
  } catch {
    return undefined;
  }
}

const scheduleEntry = z
  .strictObject({ interval: duration(1).optional(), cron: cron.optional(), timezone: timezone.optional() })
  .superRefine((entry, context) => {
    if ((entry.interval === undefined) === (entry.cron === undefined)) {
      context.addIssue(
        issue('neither interval nor cron, or both', 'Write { interval: 15m } or { cron: "0 */6 * * *" }.'),
      );
    } else if (entry.interval !== undefined && entry.timezone !== undefined) {
      context.addIssue(issue('an interval has no time zone', 'It is counted from 1970 in UTC.', ['timezone']));
    }
  });

const scheduleError = 'write { interval: 15m }, { cron: "0 */6 * * *", timezone: UTC }, a list of these, or []';

const deploymentShape = z
  .strictObject({
    name: sourceId,
    description: z.string().max(1000).default(''),
    flow: z.string(),
    schedule: z.union([scheduleEntry, z.array(scheduleEntry)], { error: scheduleError }).nullish(),
    parameters: z.record(z.string(), z.unknown()).default({}),
    tags: z.array(z.string().min(1).max(100)).max(20).default([]),
    task_queue: z.string().min(1).max(200).optional(),
    overlap: z.enum(overlapPolicies).default('buffer_all' satisfies OverlapPolicy),
    catchup_window: duration(leastCatchup).default('1h'),
    paused: z.boolean().optional(),
  })
  .superRefine((file, context) => {
    const flow = deployableFlow(file.flow);
    if (flow === undefined) return context.addIssue(unknownFlow(file.flow));
    const zones = new Set(entriesOf(file.schedule).flatMap((entry) => ('cron' in entry ? [entry.timezone] : [])));
    if (zones.size > 1) {
      context.addIssue(issue('two time zones', 'Write one deployment for each time zone.', ['schedule']));
    }
    try {
      flow.read(file.parameters, (reason, example) => new SluiceError('configuration', reason, example));
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      context.addIssue(issue(error.message, error.remedy, ['parameters', ...keyNamed(error.message, file.parameters)]));
    }
  });

function unknownFlow(flow: string) {
  const known = Object.keys(deployableFlows);
  const meant = nearest(flow, known);
  const question = meant ? `Did you mean ${meant}? ` : '';
  return issue(`unknown flow ${flow}`, `${question}Allowed are ${known.join(', ')}.`, ['flow']);
}

/** The parameter that a reason is about: readers put its name between backticks. */
function keyNamed(reason: string, parameters: Record<string, unknown>): string[] {
  const named = /`([^`]+)`/.exec(reason)?.[1];
  return named !== undefined && Object.hasOwn(parameters, named) ? [named] : [];
}

function entriesOf(schedule: z.infer<typeof deploymentShape>['schedule']): DeploymentSchedule[] {
  const entries = Array.isArray(schedule) ? schedule : schedule ? [schedule] : [];
  return entries.map((entry) =>
    entry.cron === undefined
      ? { interval: entry.interval ?? '' }
      : { cron: entry.cron.trim().replace(/\s+/g, ' '), timezone: entry.timezone ?? 'UTC' },
  );
}

/**
 * Reads all `*.yaml` of a folder, in order of their names. Errors: `configuration` with file and line; also for a folder
 * that is not there or has no such file, and for two files with one name.
 */
export function readDeployments(folder: string, environment: NodeJS.ProcessEnv = process.env): DeploymentFile[] {
  const files = filesOf(folder).map((name) => readDeployment(path.join(folder, name), environment));
  const byName = new Map<string, DeploymentFile>();
  for (const one of files) {
    const twin = byName.get(one.deployment.name);
    if (twin !== undefined) {
      const reason = `the deployment ${one.deployment.name} is also in ${twin.file}`;
      throw new SluiceError('configuration', reason, 'Give each its own name.', one.placeOf('name'));
    }
    byName.set(one.deployment.name, one);
  }
  return files;
}

function readDeployment(file: string, environment: NodeJS.ProcessEnv): DeploymentFile {
  // Parameters keep `${NAME}`: the worker reads it, and what Temporal stores holds no secret.
  const keeps = (at: PropertyKey[]) => at[0] === 'parameters';
  const { value, lineOf } = parseWithLines(file, textOf(file), deploymentShape, environment, keeps);
  const { schedule, parameters, ...rest } = value;
  const read = deployableFlow(value.flow)?.read(parameters, (reason) => new Error(reason)) ?? {};
  return {
    deployment: { ...rest, schedule: entriesOf(schedule), parameters: { ...read } },
    file,
    placeOf: (...keys) => ({ file, line: lineOf(keys) }),
  };
}

function filesOf(folder: string): string[] {
  const names = reading(folder, () => readdirSync(folder)).sort();
  const files = names.filter((name) => name.endsWith('.yaml'));
  if (files.length > 0) return files;
  throw new SluiceError('configuration', 'the folder has no *.yaml files', docs, { file: folder });
}

function textOf(file: string): string {
  return reading(file, () => readFileSync(file, 'utf8'));
}

function reading<Answer>(file: string, read: () => Answer): Answer {
  try {
    return read();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new SluiceError('configuration', `cannot read it: ${code}`, `See that it is there. ${docs}`, { file }, error);
  }
}
