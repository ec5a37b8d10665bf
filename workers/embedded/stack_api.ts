/** The stack's own calls of its REST API. */
import { SluiceError } from '../../model/errors.ts';

export interface SourceState {
  id: string;
  status: string;
  lag_seconds: number | null;
  lag_bytes: number | null;
  /** Null when ClickHouse cannot be asked. */
  changes_total: number | null;
  tables: { asset_id: string; table: string; status: string; rows: number | null }[];
  last_error: { reason: string; remedy: string } | null;
}

/** A run of a deployment. */
export interface RunState {
  workflow: { id: string; run_id: string | null };
  status: string;
}

export interface DeploymentState {
  name: string;
  flow: string;
  running: RunState[];
  last_runs: RunState[];
  last_error: { reason: string; remedy: string } | null;
}

export interface PipelineState {
  status: string;
  sources: SourceState[];
}

export interface Verification {
  source: string;
  status: string;
  identical: boolean | null;
  tables: {
    asset_id: string;
    identical: boolean;
    source_rows: number;
    copy_rows: number;
    missing: number;
    extra: number;
    different: number;
    rejected: number;
  }[];
}

export interface ApiAnswer<T> {
  status: number;
  body: T;
}

export class StackApi {
  readonly #base: string;
  readonly #token: string | undefined;

  constructor(base: string, token: string | undefined) {
    this.#base = base;
    this.#token = token;
  }

  /** One call; any HTTP status is an answer. Throws when there is none in 30 s. */
  async call<T>(method: string, path: string, body?: unknown): Promise<ApiAnswer<T>> {
    const answer = await fetch(`${this.#base}${path}`, {
      method,
      headers: {
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...(this.#token ? { Authorization: `Bearer ${this.#token}` } : {}),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(30_000),
    });
    const text = await answer.text();
    return { status: answer.status, body: (text ? JSON.parse(text) : undefined) as T };
  }

  /** The body of a 2xx answer; any other is a SluiceError with the answer's own reason and remedy. */
  async ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await this.call<T & { detail?: string; remedy?: string; kind?: string }>(method, path, body);
    if (answer.status < 300) return answer.body;
    const { detail, remedy } = answer.body ?? {};
    const reason = `${method} ${path} answered ${answer.status}${detail ? `: ${detail}` : ''}`;
    throw new SluiceError('unexpected', reason, remedy ?? 'See the log of the API.');
  }

  async deployments(): Promise<DeploymentState[]> {
    return await this.ask<DeploymentState[]>('GET', '/api/v1/deployments');
  }

  async pipeline(): Promise<PipelineState> {
    return await this.ask<PipelineState>('GET', '/api/v1/pipeline/status');
  }
}
