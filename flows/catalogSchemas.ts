/**
 * The part of the catalog that keeps the registry of schemas. It lets one change happen at a time and gives each its ids, so
 * that two registrations at once get two versions. Bodies are in ClickHouse, where activities check and store them; what is
 * kept here can be lost, and is read from there again.
 */
import { defineQuery, defineSignal, defineUpdate, setHandler } from '@temporalio/workflow';
import { idPattern } from '../model/asset.ts';
import { catalogMessages } from '../model/messages.ts';
import { type CompatibilityMode, compatibilityModes, readSchema, subjectProblem } from '../model/schema.ts';
import {
  type CompatibilityRequest,
  type RegisterAnswer,
  type RegisterRequest,
  type RegistrySummary,
  type SubjectState,
  subjectsLimit,
} from '../model/subject.ts';
import { askOptions, schemaActivities } from './activities.ts';
import { isObject, refusalOf } from './input.ts';
import { readFailure, refuse } from './refuse.ts';

/** What the catalog carries of schemas from run to run: the last id that was given, and subjects. */
export type SchemasState = RegistrySummary;

/** The same while it runs: subjects may have any name. */
interface Known {
  lastId: number;
  subjects: Map<string, SubjectState>;
}

export const registerSchema = defineUpdate<RegisterAnswer, [RegisterRequest]>(catalogMessages.registerSchema);
export const setCompatibility = defineUpdate<SubjectState, [CompatibilityRequest]>(catalogMessages.setCompatibility);
export const subjects = defineQuery<Record<string, SubjectState>>(catalogMessages.subjects);
/** What copies of a source are made from was stored, by an activity of this flow. */
interface TablesDefined {
  source: string;
  /** Absent in messages of earlier versions. */
  workflow?: { workflow_id: string; run_id: string };
}

/** Sent by activities when they have stored what a copy is made from. */
export const tablesDefined = defineSignal<[TablesDefined]>(catalogMessages.tablesDefined);

const registerExample =
  'Right is e.g. {"subject": "orders", "schema": {"fields": [{"name": "id", "type": "long"}]}, "compatibility": "BACKWARD"}.';
const modeExample = 'Right is e.g. {"subject": "orders", "compatibility": "FULL"}.';

/**
 * Ids that are left out where somebody who was given up may still write some: they must count as older. More than a source has
 * tables.
 */
const gap = 100_000;

export class CatalogSchemas {
  /** Undefined until it is read from ClickHouse, at the first change. */
  #known: Known | undefined;
  /** The last change that was begun. */
  #last: Promise<unknown> = Promise.resolve();
  /** Sources whose tables wait to be looked at. */
  readonly #waiting = new Set<string>();

  constructor(carried: unknown) {
    if (isState(carried)) this.#known = knownFrom(carried, 0);
  }

  /** What the next run goes on with. */
  get state(): SchemasState | undefined {
    return this.#known && { last_id: this.#known.lastId, subjects: Object.fromEntries(this.#known.subjects) };
  }

  /** Answers the messages of the registry. */
  listen(): void {
    setHandler(registerSchema, (request) => this.#alone((known) => register(known, request)), {
      description: 'Registers a schema as the next version of its subject, when it goes with the versions before.',
      validator: readRequest,
    });
    setHandler(setCompatibility, (request) => this.#alone((known) => changeMode(known, request)), {
      description:
        'Sets what new versions of a subject must be able to do: BACKWARD, FORWARD, FULL, NONE, …_TRANSITIVE.',
      validator: readModeRequest,
    });
    setHandler(tablesDefined, (input) => this.#registerTables(input), {
      description: 'Registers the schemas of a source’s copies, {"source": "…"}; sent by activities.',
    });
    setHandler(subjects, () => this.state?.subjects ?? {}, {
      description: 'Latest versions and modes by subject, up to 128 KB; all are in _subjects in ClickHouse.',
    });
  }

  /** Runs a change when those before it have ended. */
  async #alone<Answer>(change: (known: Known) => Promise<Answer>): Promise<Answer> {
    const before = this.#last;
    const running = before.then(async () => change(await this.#read()));
    this.#last = running.catch(() => {});
    return running;
  }

  async #read(): Promise<Known> {
    if (this.#known) return this.#known;
    const options = { ...askOptions, summary: 'read the registry of schemas' };
    const summary = await explained(schemaActivities.summariseRegistry.executeWithOptions(options, []));
    this.#known = knownFrom(summary, summary.last_id === 0 ? 0 : gap);
    return this.#known;
  }

  /** A signal cannot be refused: what is wrong is left out. Signals that wait are one. */
  async #registerTables(input: TablesDefined): Promise<void> {
    const source = isObject(input) && typeof input.source === 'string' && idPattern.test(input.source) && input.source;
    if (!source || this.#waiting.has(source)) return;
    this.#waiting.add(source);
    // When it fails for good, the next change of a table brings it up again.
    await this.#alone(async (known) => {
      this.#waiting.delete(source);
      const options = { ...tablesOptions, summary: `schemas of ${source}` };
      const id = known.lastId + 1;
      known.lastId += gap;
      const { workflow } = input;
      const about = { source, id, ...(workflow && { workflow }) };
      const answer = await schemaActivities.registerTables.executeWithOptions(options, [about]);
      known.lastId = Math.max(id - 1, answer.last_id);
      for (const [subject, entry] of Object.entries(answer.subjects)) track(known, subject, entry);
    }).catch(() => this.#waiting.delete(source));
  }
}

/** Somebody else may wait behind it, so it gives up in time. */
const tablesOptions = { ...askOptions, retry: { ...askOptions.retry, maximumAttempts: 3 } };

async function register(known: Known, request: RegisterRequest): Promise<RegisterAnswer> {
  known.lastId += 1;
  const { subject, compatibility } = request;
  // Whoever sends it may have written it in another way than the registry does.
  const schema = readSchema(request.schema);
  const input = { subject, schema, ...(compatibility && { compatibility }), id: known.lastId };
  const options = { ...askOptions, summary: `register ${subject}`.slice(0, 200) };
  const answer = await explained(schemaActivities.registerSchema.executeWithOptions(options, [input]));
  if (answer.outcome === 'created') track(known, subject, answer);
  const tracked = known.subjects.get(subject);
  if (answer.outcome === 'same' && tracked) tracked.compatibility = answer.compatibility;
  return answer;
}

async function changeMode(known: Known, { subject, compatibility }: CompatibilityRequest): Promise<SubjectState> {
  known.lastId += 1;
  const options = { ...askOptions, summary: `compatibility of ${subject}`.slice(0, 200) };
  const input = { subject, compatibility, id: known.lastId };
  const answer = await explained(schemaActivities.setCompatibility.executeWithOptions(options, [input]));
  track(known, subject, answer);
  return answer;
}

/** Takes in a subject, unless there are so many that the catalog would grow too large. */
function track({ subjects }: Known, subject: string, { version, id, compatibility }: SubjectState): void {
  const next: [string, SubjectState] = [subject, { version, id, compatibility }];
  const full = JSON.stringify([...subjects, next]).length > subjectsLimit;
  if (subjects.has(subject) || !full) subjects.set(...next);
}

function knownFrom({ last_id, subjects }: SchemasState, above: number): Known {
  return { lastId: last_id + above, subjects: new Map(Object.entries(subjects)) };
}

/** The answer of an activity, or its failure as the update’s. */
async function explained<Answer>(answer: Promise<Answer>): Promise<Answer> {
  try {
    return await answer;
  } catch (error) {
    const { kind, reason, remedy } = readFailure(error).report;
    throw refuse(kind, reason, remedy);
  }
}

function readRequest(input: unknown): void {
  const bad = refusalOf(input, registerExample);
  if (!isObject(input)) throw bad('the input is not a registration');
  const { subject, schema, compatibility } = input;
  const problem = subjectProblem(subject);
  if (problem !== undefined) throw bad(`\`subject\` ${problem}`);
  if (compatibility !== undefined && !isMode(compatibility)) throw bad(`\`compatibility\` is none of ${allModes}`);
  try {
    readSchema(schema);
  } catch (error) {
    throw bad(error instanceof Error ? error.message : String(error));
  }
}

function readModeRequest(input: unknown): void {
  const bad = refusalOf(input, modeExample);
  if (!isObject(input)) throw bad('the input is not a subject with its compatibility');
  const problem = subjectProblem(input.subject);
  if (problem !== undefined) throw bad(`\`subject\` ${problem}`);
  if (!isMode(input.compatibility)) throw bad(`\`compatibility\` is none of ${allModes}`);
}

const allModes = compatibilityModes.join(', ');

function isMode(value: unknown): value is CompatibilityMode {
  return compatibilityModes.some((mode) => mode === value);
}

function isState(value: unknown): value is SchemasState {
  return isObject(value) && Number.isSafeInteger(value.last_id) && isObject(value.subjects);
}
