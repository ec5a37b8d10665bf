/** The live status line: rewritten each second on a terminal, a new line each ten seconds elsewhere. */
import type { PipelineState, SourceState, StackApi } from './stack_api.ts';

/** Totals are counted every few seconds: a rate over less would jump between nothing and too much. */
const rateWindow = 10_000;

export class StatusLine {
  readonly #api: StackApi;
  readonly #out: NodeJS.WriteStream;
  readonly #timer: NodeJS.Timeout;
  /** By source: totals of the last seconds, the oldest first. */
  readonly #samples = new Map<string, { total: number; at: number }[]>();
  #shown = '';
  #asking = false;

  constructor(api: StackApi, out: NodeJS.WriteStream) {
    this.#api = api;
    this.#out = out;
    this.#timer = setInterval(() => void this.#tick(), out.isTTY ? 1000 : 10_000);
    void this.#tick();
  }

  /** Prints a line above the status. */
  say(line: string): void {
    this.#clear();
    this.#out.write(`${line}\n`);
    if (this.#out.isTTY) this.#out.write(this.#shown);
  }

  /** Leaves the last status standing. */
  end(): void {
    clearInterval(this.#timer);
    if (this.#out.isTTY && this.#shown) this.#out.write('\n');
    this.#shown = '';
  }

  async #tick(): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    try {
      this.#show(this.#describe(await this.#api.pipeline()));
    } catch (error) {
      this.#show(`no status: ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      this.#asking = false;
    }
  }

  #show(text: string): void {
    if (!this.#timer.hasRef()) return;
    if (!this.#out.isTTY) {
      this.#out.write(`${text}\n`);
      return;
    }
    this.#clear();
    this.#shown = text.slice(0, Math.max(20, (this.#out.columns || 80) - 1));
    this.#out.write(this.#shown);
  }

  #clear(): void {
    if (this.#out.isTTY) this.#out.write('\r\x1b[2K');
  }

  #describe({ status, sources }: PipelineState): string {
    if (sources.length === 0) return `${status}: no source is connected`;
    return `${status}: ${sources.map((source) => this.#describeSource(source)).join(' | ')}`;
  }

  #describeSource(source: SourceState): string {
    const samples = this.#samples.get(source.id) ?? [];
    this.#samples.set(source.id, samples);
    const total = source.changes_total ?? samples.at(-1)?.total ?? 0;
    const rate = addSample(samples, total, performance.now());
    const live = source.tables.filter((table) => table.status === 'streaming').length;
    const lag = source.lag_seconds === null ? 'unknown' : `${source.lag_seconds.toFixed(1)} s`;
    const parts = [
      `${source.id} ${source.status}`,
      `${Math.round(rate).toLocaleString('en')} changes/s`,
      `${total.toLocaleString('en')} in all`,
      `lag ${lag}`,
      `${live}/${source.tables.length} tables`,
    ];
    if (source.last_error) parts.push(source.last_error.reason.slice(0, 120));
    return parts.join(' · ');
  }
}

/** Adds a total and answers the changes a second over the window. */
function addSample(samples: { total: number; at: number }[], total: number, at: number): number {
  samples.push({ total, at });
  while (samples[1] && at - samples[1].at >= rateWindow) samples.shift();
  const first = samples[0];
  return first && at > first.at ? Math.max(0, (total - first.total) / ((at - first.at) / 1000)) : 0;
}
