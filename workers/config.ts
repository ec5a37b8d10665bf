/**
 * The YAML files of SLUICE_CONFIG_DIR: read whole, checked, and every mistake told with its file and line, what is
 * allowed there, and what was probably meant.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { isMap, isScalar, LineCounter, type Node } from 'yaml';
import { z } from 'zod';
import { redact } from '../activities/secrets.ts';
import { captureConfig, connectionString, sourceId, sourceType } from '../api/control/shapes.ts';
import { type CheckInput, readCheck } from '../model/checks.ts';
import { type Place, SluiceError } from '../model/errors.ts';
import { nearest } from '../model/nearest_word.ts';
import { type RuleInput, readRule } from '../model/rules.ts';
import { ShapeError } from '../model/shape_error.ts';
import { parseYaml, replaceReferences } from './references.ts';
import { readSettings, type Settings } from './settings.ts';

const { tables, poll_interval, mode, exclude_columns, options } = captureConfig.shape;

const cdcFile = z.strictObject({
  sources: z
    .array(
      z.strictObject({
        id: sourceId,
        type: sourceType,
        connection_string: connectionString,
        tables,
        poll_interval,
        mode,
        exclude_columns,
        options,
        start: z.boolean().default(true),
      }),
    )
    .default([]),
});

const connectorsFile = z.strictObject({
  sinks: z
    .array(
      z.strictObject({
        id: sourceId,
        type: z.enum(['clickhouse']),
        url: z.url({ protocol: /^https?$/ }),
        database: z.string().min(1).optional(),
      }),
    )
    .default([]),
});

/** What rules and checks mean is checked by the model, each with its line. */
const rulesFile = z.strictObject({ rules: z.array(z.unknown()).default([]) });
const analyticsFile = z.strictObject({ windows: z.array(z.unknown()).default([]) });

export type SourceFile = z.infer<typeof cdcFile>['sources'][number];

export interface Config {
  sources: SourceFile[];
  /** Undefined where there is no such file: then what was declared otherwise stays as it is. */
  transformations: RuleInput[] | undefined;
  quality: CheckInput[] | undefined;
  /** Where each rule and check stands, by its id. */
  places: ReadonlyMap<string, Place>;
}

/** Reads all files of a folder; those that are not there count as empty. Throws `configuration` with file and line. */
export function readConfig(folder: string, environment: NodeJS.ProcessEnv = process.env): Config {
  const read = <Shape extends z.ZodType>(name: string, shape: Shape) => {
    const file = path.join(folder, name);
    return { file, ...parseWithLines(file, readIfThere(file) ?? '', shape, environment) };
  };
  const cdc = read('cdc.yaml', cdcFile);
  refuseTwins(cdc.file, cdc.value.sources);
  refuseOtherSinks(read('connectors.yaml', connectorsFile), readSettings(environment));
  refuseWindows(read('analytics.yaml', analyticsFile));
  return { sources: cdc.value.sources, ...readDeclared(folder, environment) };
}

/** A file that was read. */
interface ReadFile<Shape extends z.ZodType> {
  file: string;
  value: z.infer<Shape>;
  lineOf: LineOf;
}

/** The environment says where copies are written. A file that says otherwise would be believed, and change nothing. */
function refuseOtherSinks({ file, value, lineOf }: ReadFile<typeof connectorsFile>, settings: Settings): void {
  const { clickhouseUrl, clickhouseDatabase } = settings;
  const inUse = `copies are written to ${clickhouseDatabase} at ${redact(clickhouseUrl)}`;
  const or = 'or correct the file: there is one sink.';
  for (const [index, { id, url, database }] of value.sinks.entries()) {
    if (!isSameServer(url, clickhouseUrl)) {
      const reason = `the sink ${id} is ${redact(new URL(url).href)}, and ${inUse}`;
      throw mistake(file, lineOf(['sinks', index, 'url']), reason, `Set CLICKHOUSE_URL to it for all parts, ${or}`);
    }
    if (database === undefined || database === clickhouseDatabase) continue;
    const reason = `the sink ${id} is the database ${database}, and ${inUse}`;
    const remedy = `Set CLICKHOUSE_DATABASE=${database} for all parts, ${or}`;
    throw mistake(file, lineOf(['sinks', index, 'database']), reason, remedy);
  }
}

/** True for addresses of one server; a user that only one of them names makes no difference. */
function isSameServer(one: string, other: string): boolean {
  if (!URL.canParse(other)) return one === other;
  const [a, b] = [new URL(one), new URL(other)];
  const login = ({ username, password }: URL) => `${username}:${password}`;
  const sameLogin = [a, b].some((url) => url.username === '') || login(a) === login(b);
  return sameLogin && a.origin === b.origin && a.pathname === b.pathname;
}

function refuseWindows({ file, value, lineOf }: ReadFile<typeof analyticsFile>): void {
  if (value.windows.length === 0) return;
  const remedy = 'Take them out of the file; sums and counts can be asked for by `sluice query`.';
  throw mistake(file, lineOf(['windows', 0]), 'windows are not computed yet', remedy);
}

/** Rules and checks of a folder. Throws `configuration` with file and line. */
export function readDeclared(
  folder: string,
  environment: NodeJS.ProcessEnv = process.env,
): Pick<Config, 'transformations' | 'quality' | 'places'> {
  const ids = new Map<string, Place>();
  const read = <Item extends { rule_id: string }>(name: string, readItem: (item: unknown) => Item) => {
    const file = path.join(folder, name);
    const text = readIfThere(file);
    return text === undefined ? undefined : readRulesFile(file, text, environment, readItem, ids);
  };
  return {
    transformations: read('transformations.yaml', readRule),
    quality: read('quality.yaml', readCheck),
    places: ids,
  };
}

/** `ids`: those that are taken, and where. Rules and checks share one namespace. */
function readRulesFile<Item extends { rule_id: string }>(
  file: string,
  text: string,
  environment: NodeJS.ProcessEnv,
  readItem: (item: unknown) => Item,
  ids: Map<string, Place>,
): Item[] {
  const { value, lineOf } = parseWithLines(file, text, rulesFile, environment, isKept);
  return value.rules.map((item, index) => {
    try {
      const read = readItem(item);
      const twin = ids.get(read.rule_id);
      const line = lineOf(['rules', index, 'rule_id']);
      ids.set(read.rule_id, { file, line });
      if (twin === undefined) return read;
      const remedy = `Give each its own id; the other one is in ${twin.file}:${twin.line}.`;
      throw mistake(file, line, `${read.rule_id} is the id of two rules or checks`, remedy);
    } catch (error) {
      if (!(error instanceof ShapeError)) throw error;
      const [issue] = error.issues;
      const keys = (issue?.pointer ?? '').split('/').slice(1).map(unescapePointer);
      const line = lineOf(['rules', index, ...keys], issue?.detail.startsWith('unknown key'));
      const at = ['rules', index, ...keys].join('.');
      throw mistake(file, line, `${at}: ${issue?.detail}`, error.remedy);
    }
  });
}

/** Patterns and expressions may hold `${`: they are as they are written. */
function isKept(at: PropertyKey[]): boolean {
  return at.at(-1) === 'expression' || at.at(-1) === 'regex';
}

function unescapePointer(part: string): string | number {
  return /^\d+$/.test(part) ? Number(part) : part.replaceAll('~1', '/').replaceAll('~0', '~');
}

/** Parses and checks one file’s text. */
export function parseConfig<Shape extends z.ZodType>(
  file: string,
  text: string,
  shape: Shape,
  environment: NodeJS.ProcessEnv = process.env,
): z.infer<Shape> {
  return parseWithLines(file, text, shape, environment).value;
}

/** Line of a value in its file, or with `ofKey` of its key; of what is nearest when it is not there. */
export type LineOf = (keys: PropertyKey[], ofKey?: boolean) => number;

/**
 * Parses and checks one file’s text, and tells where its values stand. What `keeps` names stays as it is written, with
 * its `${NAME}`: connection strings and what else the worker alone may open, so that no secret reaches Temporal.
 */
export function parseWithLines<Shape extends z.ZodType>(
  file: string,
  text: string,
  shape: Shape,
  environment: NodeJS.ProcessEnv = process.env,
  keeps = (at: PropertyKey[]): boolean => at.at(-1) === 'connection_string',
): { value: z.infer<Shape>; lineOf: LineOf } {
  const lines = new LineCounter();
  const document = parseYaml(text, { lineCounter: lines });
  const [problem] = document.errors;
  if (problem) {
    const remedy = 'Correct the YAML; texts with : or # or { need quotes.';
    throw mistake(file, problem.linePos?.[0].line ?? 1, problem.message.split('\n', 1)[0] ?? '', remedy);
  }
  const lineOf: LineOf = (keys, ofKey = false) => lines.linePos(offsetAt(document.contents, keys, ofKey)).line;
  const content = replaceReferences(document.toJS({ maxAliasCount: 100 }) ?? {}, [], keeps, (name, at) => {
    const value = environment[name];
    if (value !== undefined && value !== '') return value;
    const remedy = `Set ${name}, or write the value into the file.`;
    throw mistake(file, lineOf(at), `the environment variable ${name} is not set`, remedy);
  });
  const result = shape.safeParse(content);
  if (result.success) return { value: result.data, lineOf };
  const issue = worst(result.error.issues);
  throw issue ? shapeMistake(file, insideUnion(issue), shape, lineOf) : result.error;
}

/** The one to tell: a key that is missing is probably there, under a name that nobody knows. */
function worst(issues: z.core.$ZodIssue[]): z.core.$ZodIssue | undefined {
  const [first] = issues;
  const around = (issue: z.core.$ZodIssue) => issue.path.length < (first?.path.length ?? 0);
  const isBeside = (issue: z.core.$ZodIssue) => around(issue) && issue.path.every((key, i) => key === first?.path[i]);
  return issues.find((issue) => issue.code === 'unrecognized_keys' && isBeside(issue)) ?? first;
}

/** Of a value that may be one thing or another: what is wrong with the one that was meant, if its kind tells. */
function insideUnion(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== 'invalid_union') return issue;
  const isOtherKind = (first: z.core.$ZodIssue | undefined) =>
    first?.code === 'invalid_type' && first.path.length === 0;
  const meant = issue.errors.filter((issues) => !isOtherKind(issues[0]));
  const [inner] = meant.length === 1 ? meant[0]! : [];
  return inner ? insideUnion({ ...inner, path: [...issue.path, ...inner.path] }) : issue;
}

function shapeMistake(file: string, issue: z.core.$ZodIssue, shape: z.ZodType, lineOf: LineOf): SluiceError {
  const where = issue.path.length > 0 ? ` at ${issue.path.join('.')}` : '';
  if (issue.code !== 'unrecognized_keys') {
    const { remedy } = ((issue.code === 'custom' && issue.params) || {}) as { remedy?: string };
    const usual = 'See docs/configuration.md for what is right.';
    return mistake(file, lineOf([...issue.path]), `${issue.message}${where}`, remedy ?? usual);
  }
  const [key = ''] = issue.keys;
  const allowed = keysAt(shape, issue.path);
  const meant = nearest(key, allowed);
  const question = meant ? `Did you mean ${meant}? ` : '';
  return mistake(
    file,
    lineOf([...issue.path, key], true),
    `unknown key ${key}${where}`,
    `${question}Allowed are ${allowed.join(', ')}.`,
  );
}

function mistake(file: string, line: number, reason: string, remedy: string): SluiceError {
  return new SluiceError('configuration', reason, remedy, { file, line });
}

/** Where a value (or its key) stands in the text; the nearest thing that is there when it is missing. */
function offsetAt(root: Node | null, keys: PropertyKey[], ofKey: boolean): number {
  let node = root;
  let offset = root?.range?.[0] ?? 0;
  for (const [index, key] of keys.entries()) {
    if (isMap(node)) {
      const pair = node.items.find((item) => String(isScalar(item.key) ? item.key.value : item.key) === String(key));
      if (!pair) return offset;
      const isLast = index === keys.length - 1;
      node = pair.value as Node | null;
      const place = (isLast && ofKey) || !node?.range ? (pair.key as Node) : node;
      offset = place.range?.[0] ?? offset;
    } else {
      node = (node as { get?: (key: unknown, keep: boolean) => Node } | null)?.get?.(key, true) ?? null;
      offset = node?.range?.[0] ?? offset;
    }
  }
  return offset;
}

/** The keys that a shape allows at a place. */
function keysAt(shape: unknown, at: PropertyKey[]): string[] {
  const inner = unwrap(shape);
  if (inner instanceof z.ZodUnion) {
    return inner.options.map((option) => keysAt(option, at)).find((keys) => keys.length > 0) ?? [];
  }
  const [key, ...rest] = at;
  if (key === undefined) return inner instanceof z.ZodObject ? Object.keys(inner.shape) : [];
  if (inner instanceof z.ZodArray) return keysAt(inner.element, rest);
  return inner instanceof z.ZodObject ? keysAt(inner.shape[String(key)], rest) : [];
}

function unwrap(shape: unknown): unknown {
  const wraps = shape instanceof z.ZodDefault || shape instanceof z.ZodOptional || shape instanceof z.ZodNullable;
  return wraps ? unwrap(shape.unwrap()) : shape;
}

function refuseTwins(file: string, sources: SourceFile[]): void {
  const ids = sources.map((source) => source.id);
  const twin = ids.find((id, index) => ids.indexOf(id) !== index);
  if (twin === undefined) return;
  throw new SluiceError('configuration', `two sources have the id ${twin}`, 'Give each its own id.', { file });
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return undefined;
    throw new SluiceError(
      'configuration',
      `cannot read it: ${code}`,
      'See that it is a readable file.',
      { file },
      error,
    );
  }
}
