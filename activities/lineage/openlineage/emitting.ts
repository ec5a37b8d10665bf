/** Activities that also say what they do as events of OpenLineage. None waits for that, and none fails by it. */
import path from 'node:path';
import { CancelledFailure, Context } from '@temporalio/activity';
import { addEffects, noEffects } from '../../../model/batch.ts';
import { snapshotWorkflowId } from '../../../model/messages.ts';
import type { LeaseSummary } from '../../../model/source.ts';
import { createLog } from '../../../workers/log.ts';
import type { CaptureContext } from '../../capture/context.ts';
import type { CaptureActivities } from '../../capture/contract.ts';
import type { ExtractActivities, ExtractedFile } from '../../extract/contract.ts';
import { asFailure } from '../../failure.ts';
import { readRecords } from '../../load/batches.ts';
import { redact } from '../../secrets.ts';
import { type Datasets, type Done, deploymentDatasets, sourceDatasets } from './datasets.ts';
import { Outbox } from './outbox.ts';
import { type EventType, type Run, runEvent, runIdOf } from './run_event.ts';
import { readTransport } from './transport.ts';

type All = CaptureActivities & ExtractActivities & { close(): void };
type Input<Name extends keyof All> = Parameters<All[Name]>[0];

/** Between two signs of life of a run, in milliseconds. */
const beat = 60_000;

/** The same activities; those that move data tell it, where the environment says to whom. `home`: where events wait. */
export function emittingEvents<Activities extends All>(
  activities: Activities,
  options: { context: CaptureContext; assetData: string; home: string; logLevel?: string },
): Activities {
  const transport = readTransport();
  if (!transport) return activities;
  const log = createLog('openlineage', options.logLevel ?? 'info');
  const folder = path.join(options.home, 'openlineage');
  const outbox = new Outbox({ folder, deliver: transport.deliver, warn: (text) => log.warn(redact(text)) });
  void outbox.adopt().catch((error: unknown) => log.warn(redact(String(error))));
  const teller = new Teller(outbox, transport.namespace, options);
  return { ...activities, ...teller.wrapped(activities) };
}

/** How a run ends, by what its activity answered. */
interface Ending {
  type: EventType;
  done?: Done;
  error?: string;
}

class Teller {
  readonly #outbox: Outbox;
  readonly #namespace: string;
  readonly #context: CaptureContext;
  readonly #assetData: string;
  /** Events are made one after another: a run's end never comes before its beginning. */
  #last: Promise<void> = Promise.resolve();
  /** When a run last gave a sign of life. */
  readonly #beats = new Map<string, number>();

  constructor(
    outbox: Outbox,
    namespace: string,
    { context, assetData }: { context: CaptureContext; assetData: string },
  ) {
    this.#outbox = outbox;
    this.#namespace = namespace;
    this.#context = context;
    this.#assetData = assetData;
  }

  wrapped(
    activities: All,
  ): Pick<All, 'captureLease' | 'planSnapshot' | 'copyChunk' | 'finishSnapshot' | 'extractFile' | 'close'> {
    return {
      captureLease: (input) => this.#lease(input, activities.captureLease),
      planSnapshot: (input) => this.#snapshot(input, activities.planSnapshot, 'START'),
      copyChunk: (input) => this.#snapshot(input, activities.copyChunk, 'RUNNING'),
      finishSnapshot: (input) => this.#snapshot(input, activities.finishSnapshot, 'COMPLETE'),
      extractFile: (input) => this.#extract(input, activities.extractFile),
      close: () => {
        this.#outbox.close();
        activities.close();
      },
    };
  }

  /** Each attempt of a lease is a run. */
  async #lease(input: Input<'captureLease'>, work: All['captureLease']): Promise<LeaseSummary> {
    const { workflowExecution, activityId, attempt } = Context.current().info;
    const { request, tables } = input;
    const run = this.#run(
      runIdOf(workflowExecution?.runId ?? '', activityId, attempt),
      'CAPTURE',
      `capture.${request.id}`,
    );
    const assets = tables.map((table) => table.asset_id);
    const tell = (type: EventType, more: Omit<Ending, 'type'> = {}) =>
      this.#tell(run, { type, ...more }, () => sourceDatasets(this.#context, request, assets, more.done));
    tell('START');
    const beats = setInterval(() => tell('RUNNING'), beat);
    try {
      const summary = await work(input);
      tell(summary.ended === 'cancelled' ? 'ABORT' : 'COMPLETE', { done: summary.assets });
      return summary;
    } catch (error) {
      const ending = endingOf(error);
      tell(ending.type, ending);
      throw error;
    } finally {
      clearInterval(beats);
    }
  }

  /** A snapshot is one run, whichever runs of its flow do its chunks. What is tried again has not failed. */
  async #snapshot<Asked extends Input<'planSnapshot'>, Answer>(
    input: Asked,
    work: (input: Asked) => Promise<Answer>,
    type: EventType,
  ): Promise<Answer> {
    const { request, table } = input;
    const { asset_id: asset, generation, start_position: start } = table;
    const id = runIdOf(snapshotWorkflowId(request.id, asset, generation), start);
    const run = this.#run(id, 'SNAPSHOT', `snapshot.${asset}`);
    const tell = (ending: Ending, sums?: () => Promise<Done>) =>
      this.#tell(run, ending, async () => sourceDatasets(this.#context, request, [asset], await sums?.()));
    if (type === 'START') tell({ type });
    try {
      const answer = await work(input);
      if (type === 'COMPLETE')
        tell({ type }, () => this.#copied(request.id, `${request.id}/snapshot/${asset}/${generation}/`, start));
      else if (type === 'RUNNING' && this.#isDue(id)) tell({ type });
      return answer;
    } catch (error) {
      const ending = endingOf(error);
      if (ending.final) tell(ending);
      throw error;
    }
  }

  /** A run of a deployment is one run, whatever files it writes. */
  async #extract(input: Input<'extractFile'>, work: All['extractFile']): Promise<ExtractedFile> {
    const { request, plan, number } = input;
    const { workflowId = '', runId = '' } = Context.current().info.workflowExecution ?? {};
    const nominal = plan.from === '' ? undefined : { from: plan.from, to: plan.to };
    const run = {
      ...this.#run(runIdOf(workflowId, runId, 'extract'), 'EXTRACT', `extract.${request.deployment}`),
      ...(nominal && { nominal }),
    };
    const tell = (ending: Ending, sums?: () => Promise<Done>) => {
      const datasets = async () =>
        deploymentDatasets(this.#context, request.deployment, request.api_url, this.#assetData, await sums?.());
      this.#tell(run, ending, datasets);
    };
    if (number === 1) tell({ type: 'START' });
    try {
      const file = await work(input);
      const sums = () => this.#loaded(request.deployment, runId);
      tell({ type: file.next === '' ? 'COMPLETE' : 'RUNNING' }, sums);
      return file;
    } catch (error) {
      const ending = endingOf(error);
      if (ending.final) tell(ending);
      throw error;
    }
  }

  #run(runId: string, type: Run['job']['type'], name: string): Run {
    const { workflowId = '', runId: flow = '' } = Context.current().info.workflowExecution ?? {};
    const namespace = this.#namespace;
    const parent = { runId: runIdOf(workflowId, flow), job: { namespace, name: workflowId } };
    return { runId, job: { namespace, name, type }, parent };
  }

  /** Behind all that was told before, and beside the activity. */
  #tell(run: Run, ending: Ending, datasets: () => Promise<Datasets>): void {
    const { log } = Context.current();
    const at = new Date().toISOString();
    this.#last = this.#last
      .then(async () => {
        // What a run reads and writes is worth less than that it began, or ended.
        const what = await datasets().catch(() => ({ inputs: [], outputs: [] }));
        this.#outbox.send(
          runEvent(ending.type, run, { at, ...what, ...(ending.error !== undefined && { error: ending.error }) }),
        );
      })
      .catch((error: unknown) => log.warn('an event of OpenLineage was not made', { reason: redact(String(error)) }));
  }

  #isDue(runId: string): boolean {
    const now = Date.now();
    if (now - (this.#beats.get(runId) ?? 0) < beat) return false;
    this.#beats.set(runId, now);
    return true;
  }

  async #copied(source: string, prefix: string, start: string): Promise<Done> {
    const where = `source = {source:String} AND kind = 'chunk' AND startsWith(id, {prefix:String}) AND position_from = {start:String}`;
    return this.#sums(where, { source, prefix, start });
  }

  async #loaded(deployment: string, runId: string): Promise<Done> {
    const where = `source = {deployment:String} AND run_id = {runId:String} AND kind IN ('rows', 'backfill')`;
    const done = await this.#sums(where, { deployment, runId });
    return Object.keys(done).length > 0 ? done : { [deployment]: noEffects() };
  }

  /** By asset, what records say that was done. */
  async #sums(where: string, params: Record<string, unknown>): Promise<Done> {
    const done: Done = {};
    for (const { assets } of await readRecords(this.#context.clickhouse('read'), where, params)) {
      for (const [asset, effects] of Object.entries(assets)) {
        done[asset] ??= noEffects();
        addEffects(done[asset], effects);
      }
    }
    return done;
  }
}

/** A run that was cancelled is given up; any other error is its failure. `final`: it is not tried again. */
function endingOf(error: unknown): Ending & { final: boolean } {
  const failure = asFailure(error);
  if (failure instanceof CancelledFailure) return { type: 'ABORT', final: true };
  const { nonRetryable } = failure as { nonRetryable?: boolean | null };
  return { type: 'FAIL', error: redact(failure.message).slice(0, 2000), final: nonRetryable === true };
}
