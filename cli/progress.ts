/** Waiting for a flow: a line on the terminal that says what it is doing, rewritten each second. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Control } from '../api/control/control.ts';
import type { StartedAnswer } from '../api/control/deployment_shapes.ts';
import { failureOf, query } from '../api/control/temporal.ts';
import { asSluiceError } from '../model/errors.ts';

/** On stderr, so that stdout holds the answer alone; nothing where nobody looks on. */
class ProgressLine {
  readonly #out = process.stderr;

  show(text: string): void {
    if (!this.#out.isTTY) return;
    const line = text
      .replace(/[\u0000-\u001f\u007f-\u009f]/g, ' ')
      .slice(0, Math.max(20, (this.#out.columns || 80) - 1));
    this.#out.write(`\r\u001b[K${line}`);
  }

  clear(): void {
    if (this.#out.isTTY) this.#out.write('\r\u001b[K');
  }
}

/** Waits until a flow has ended, and answers what it answered. Errors: what the flow itself stopped at. */
export async function waitForFlow(control: Control, { deployment, workflow }: StartedAnswer): Promise<unknown> {
  const handle = control.temporal.workflow.getHandle(workflow.id, workflow.run_id ?? undefined);
  const line = new ProgressLine();
  const ended = new AbortController();
  const watching = watch(control, deployment, workflow.id, line, ended.signal);
  try {
    return await handle.result();
  } catch (error) {
    throw failureOf(error, `the run ${workflow.id}`);
  } finally {
    ended.abort();
    await watching;
    line.clear();
  }
}

async function watch(control: Control, name: string, flow: string, line: ProgressLine, signal: AbortSignal) {
  if (!process.stderr.isTTY) return;
  const began = Date.now();
  while (!signal.aborted) {
    const doing = await detailsOf(control, flow).catch((error: unknown) => asSluiceError(error).message);
    if (signal.aborted) return;
    line.show(`${name} ${Math.round((Date.now() - began) / 1000)} s · ${doing}`);
    await sleep(1000, undefined, { signal }).catch(() => {});
  }
}

/** The first line of the details that a flow shows in Temporal UI. */
async function detailsOf(control: Control, flow: string): Promise<string> {
  const answer = await query<{ currentDetails?: string }>(control, flow, '__temporal_workflow_metadata');
  return (answer.currentDetails ?? '').split('\n', 1)[0]?.replaceAll('**', '') || 'running';
}
