/**
 * Waiting for a flow: on a terminal a line that says what it is doing, rewritten each second; elsewhere, e.g. in the log
 * of a CI, a line of its own now and then. All on stderr, so that stdout holds the answer alone.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Control } from '../api/control/control.ts';
import type { StartedAnswer } from '../api/control/deployment_shapes.ts';
import { bounded, failureOf, noWorkerOn, query } from '../api/control/temporal.ts';
import { asSluiceError, SluiceError } from '../model/errors.ts';

/** Milliseconds between two looks, and so between two lines at least. */
const terminalPause = 1_000;
const logPause = 10_000;

/** What of a stream is needed to write progress to it. */
export interface Output {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}

/** One line on a terminal; lines that say something new elsewhere. */
class ProgressLine {
  readonly #out: Output;
  #told = '';

  constructor(out: Output) {
    this.#out = out;
  }

  /** `when` is told too, but is nothing new. */
  show(when: string, doing: string): void {
    const line = `${when} · ${doing}`.replace(/[\u0000-\u001f\u007f-\u009f]/g, ' ');
    if (this.#out.isTTY) this.#out.write(`\r\u001b[K${line.slice(0, Math.max(20, (this.#out.columns || 80) - 1))}`);
    else if (doing !== this.#told) this.#out.write(`${line}\n`);
    this.#told = doing;
  }

  /** A line that stays. */
  say(text: string): void {
    this.clear();
    this.#out.write(`${text}\n`);
  }

  clear(): void {
    if (this.#out.isTTY) this.#out.write('\r\u001b[K');
  }
}

/** Waits until a flow has ended, and answers what it answered. Errors: what the flow itself stopped at. */
export async function waitForFlow(control: Control, { deployment, workflow }: StartedAnswer): Promise<unknown> {
  const handle = control.temporal.workflow.getHandle(workflow.id, workflow.run_id ?? undefined);
  return await withProgress(control, deployment, workflow.id, async () => {
    try {
      return await handle.result();
    } catch (error) {
      throw failureOf(error, `the run ${workflow.id}`);
    }
  });
}

/** Waits as `wait` does, and shows meanwhile what the flow of that id is doing. `name` is what people call it. */
export async function withProgress<Answer>(
  control: Control,
  name: string,
  flow: string,
  wait: () => Promise<Answer>,
): Promise<Answer> {
  const ended = new AbortController();
  const watching = watch(name, () => detailsOf(control, flow), ended.signal);
  try {
    return await wait();
  } finally {
    ended.abort();
    await watching;
  }
}

/**
 * Shows what `look` answers until it is told to end. That no worker answers is said once, when a second look has
 * shown it too: one that is busy may be late.
 */
export async function watch(
  name: string,
  look: () => Promise<string>,
  signal: AbortSignal,
  out: Output = process.stderr,
  pause = out.isTTY ? terminalPause : logPause,
): Promise<void> {
  const line = new ProgressLine(out);
  const began = Date.now();
  let missed = 0;
  while (await passes(missed === 1 ? Math.min(pause, terminalPause) : pause, signal)) {
    const seen = await look().catch((error: unknown) => asSluiceError(error));
    if (signal.aborted) break;
    const away = seen instanceof SluiceError && seen.kind === 'no_worker';
    missed = away ? missed + 1 : 0;
    if (away && missed === 2) line.say(`${name} waits: ${seen.message}. ${seen.remedy}`);
    else if (!away) line.show(`${name} ${Math.round((Date.now() - began) / 1000)} s`, textOf(seen));
  }
  line.clear();
}

function textOf(seen: string | SluiceError): string {
  return typeof seen === 'string' ? seen : seen.message;
}

/** True when the time has passed, false when it was cut short. */
async function passes(milliseconds: number, signal: AbortSignal): Promise<boolean> {
  await sleep(milliseconds, undefined, { signal }).catch(() => {});
  return !signal.aborted;
}

/** The first line of the details that a flow shows in Temporal UI. Errors: `no_worker` of its own task queue. */
async function detailsOf(control: Control, flow: string): Promise<string> {
  try {
    const answer = await query<{ currentDetails?: string }>(control, flow, '__temporal_workflow_metadata');
    return plainLine(answer.currentDetails ?? '') || 'running';
  } catch (error) {
    if (!(error instanceof SluiceError) || error.kind !== 'no_worker') throw error;
    const handle = control.temporal.workflow.getHandle(flow);
    const { taskQueue } = await bounded(control, `the flow ${flow}`, () => handle.describe());
    throw noWorkerOn(control, taskQueue, error);
  }
}

/** The first line without bold and links: what those lead to is in Temporal UI. */
function plainLine(markdown: string): string {
  const [line = ''] = markdown.split('\n', 1);
  return line.replaceAll('**', '').replace(/\[([^\]]*)\]\([^)]*\)/g, '$1');
}
