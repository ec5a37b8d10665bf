/** The source's own log: asked through a flow, since sources may be in reach of workers alone. */
import { SluiceError } from '../../model/errors.ts';
import { type LogFigures, logFigures } from '../../model/log.ts';
import { flowNames, type LogLook, logMessages, logWorkflowId } from '../../model/messages.ts';
import type { Control } from './control.ts';
import { updateOrStart } from './temporal.ts';

/**
 * Where the log of a source stands now: what the source showed before the call lies before that position. Errors: the
 * source's own (`source_unreachable`, …), `not_found`, `no_worker`, `timeout`.
 */
export async function lookAtLog(control: Control, source: string): Promise<LogLook> {
  const summary = `Where the log of ${source} stands`;
  const flow = { type: flowNames.watchLog, id: logWorkflowId(source), input: { source }, summary };
  // A question, and no order: its answer is another each time.
  const anew = { ...control, idempotencyKey: undefined };
  const ask = () => updateOrStart<LogLook>(anew, flow, logMessages.look, undefined);
  try {
    return await ask();
  } catch (error) {
    // The flow that nobody had asked for some time was just ending; the next call starts another.
    if (!(error instanceof SluiceError) || error.kind !== 'not_found') throw error;
    return await ask();
  }
}

interface Known {
  figures: LogFigures | null;
  /** When the next look may begin (ms since the epoch). */
  next: number;
  running: Promise<void> | undefined;
}

const known = new WeakMap<Control, Map<string, Known>>();
/** A log that nobody reads is looked at this often at most (ms), and waited for so long at first. */
const every = 30_000;
const patience = 1_500;

/** What is kept of a source's log while no lease tells; null when that is not known yet, or cannot be asked. */
export async function restingLog(control: Control, source: string): Promise<LogFigures | null> {
  const sources = known.get(control) ?? new Map<string, Known>();
  known.set(control, sources);
  const entry = sources.get(source) ?? { figures: null, next: 0, running: undefined };
  sources.set(source, entry);
  if (!entry.running && Date.now() >= entry.next) entry.running = refresh(control, source, entry);
  if (entry.running && entry.figures === null) await Promise.race([entry.running, pause()]);
  return entry.figures;
}

async function refresh(control: Control, source: string, entry: Known): Promise<void> {
  try {
    const { state, samples } = await lookAtLog(control, source);
    entry.figures = logFigures(state, samples, false);
  } catch {
    // What is wrong with the source is told by its flow.
    entry.figures = null;
  } finally {
    entry.next = Date.now() + every;
    entry.running = undefined;
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, patience).unref());
}
