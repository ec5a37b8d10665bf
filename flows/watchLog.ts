/**
 * Flow `watchLog`, started by whoever first asks: answers where a source's log stands now, and how much of it is kept for
 * us, also while no lease runs. Only activities may log in to the source, and a flow can wait for one. It remembers what it
 * saw, so that growth shows, and ends when nobody has asked for some time.
 */
import {
  allHandlersFinished,
  condition,
  continueAsNew,
  defineUpdate,
  setCurrentDetails,
  setHandler,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import { addSample, type LogSample, type LogState, logFigures, size } from '../model/log.ts';
import { captureWorkflowId, type LogLook, logMessages, logWorkflowId } from '../model/messages.ts';
import { activities, askOptions } from './activities.ts';
import { readSourceName } from './input.ts';
import { code, flowLink, page, timeOfDay, trouble } from './markdown.ts';
import { readFailure, refuse } from './refuse.ts';
import { sourceAttributes } from './searchAttributes.ts';

export const look = defineUpdate<LogLook>(logMessages.look);

/** Nobody has asked for so long: the flow ends. */
const patience = '10m';

/** Watches the log of one source. `carried` is the flow's own. */
export async function watchLog(input: { source: string }, carried: LogSample[] = []): Promise<void> {
  const source = readSourceName(input);
  const id = logWorkflowId(source);
  if (workflowInfo().workflowId !== id)
    throw refuse('configuration', `the log of ${source} is watched by one flow`, `Start it with --workflow-id ${id}.`);
  const watch = new Watch(source, carried);
  upsertSearchAttributes(sourceAttributes(source, 'watchLog'));
  setHandler(look, () => watch.look(), {
    description: 'Looks at the source’s log now: its position, and what is kept.',
  });
  for (;;) {
    const asked = watch.asked;
    await condition(() => workflowInfo().continueAsNewSuggested, patience);
    await condition(allHandlersFinished);
    if (workflowInfo().continueAsNewSuggested) await continueAsNew<typeof watchLog>({ source }, watch.samples);
    if (watch.asked === asked) return;
  }
}

class Watch {
  readonly #source: string;
  #running: Promise<LogLook> | undefined;
  #next: Promise<LogLook> | undefined;
  samples: LogSample[];
  asked = 0;

  constructor(source: string, samples: LogSample[]) {
    this.#source = source;
    this.samples = samples;
  }

  /** A look that begins now or later. Who asks while one is under way shares the next with all others who do. */
  look(): Promise<LogLook> {
    this.asked += 1;
    if (!this.#running) return this.#begin();
    const first = this.#running;
    this.#next ??= first.then(
      () => this.#begin(),
      () => this.#begin(),
    );
    return this.#next;
  }

  #begin(): Promise<LogLook> {
    this.#next = undefined;
    const running = this.#ask().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }

  async #ask(): Promise<LogLook> {
    const options = { ...askOptions, summary: `look at the log of ${this.#source}` };
    let state: LogState;
    try {
      state = await activities.lookAtLog.executeWithOptions(options, [{ source: this.#source }]);
    } catch (error) {
      const { report } = readFailure(error);
      throw refuse(report.kind, report.reason, report.remedy);
    }
    this.samples = addSample(this.samples, state);
    const { warning } = logFigures(state, this.samples, true);
    const stored = state.acknowledged === null ? 'nothing is kept' : `stored up to ${code(state.acknowledged)}`;
    setCurrentDetails(
      page(
        `**keeps ${size(state.retained_bytes)}** · log at ${code(state.position)}, ${stored} · ${timeOfDay(state.at)} UTC`,
        warning && trouble('mind its log', warning),
        `The log of ${flowLink(captureWorkflowId(this.#source), code(this.#source))}, looked at whenever somebody asks.`,
      ),
    );
    return { state, samples: this.samples };
  }
}
