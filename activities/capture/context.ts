/** What the activities of capturing share: settings, connections to ClickHouse by role, and secrets opened late. */
import { Context } from '@temporalio/activity';
import type { Client, ScheduleClient } from '@temporalio/client';
import { CancelledFailure } from '@temporalio/common';
import { asSluiceError, type Place, SluiceError } from '../../model/errors.ts';
import { captureMessages, captureWorkflowId, catalogMessages, catalogWorkflowId } from '../../model/messages.ts';
import type { CaptureStatus, ConnectRequest } from '../../model/source.ts';
import { askFlow, updateFlow } from '../../workers/temporal_client.ts';
import { ClickHouse, greatestPatience, type Role } from '../load/clickhouse.ts';
import { ClickHouseSink } from '../load/clickhouse_sink.ts';
import { open } from '../secrets.ts';
import type { Connected } from './source.ts';

/** What of the process's settings activities need. */
export interface CaptureSettings {
  clickhouseUrl: string;
  clickhouseDatabase: string;
  secretKey: string;
  /** Rows after which a batch is cut. */
  bufferSize: number;
  /** Milliseconds between two looks at a source's catalog while it streams. */
  lookEvery: number;
}

export class CaptureContext {
  readonly settings: CaptureSettings;
  readonly #client: Client;
  readonly #roles = new Map<Role, ClickHouse>();

  constructor(settings: CaptureSettings, client: Client) {
    this.settings = settings;
    this.#client = client;
  }

  /** The connection to ClickHouse for a role; one a process. */
  clickhouse(role: Role): ClickHouse {
    let clickhouse = this.#roles.get(role);
    if (!clickhouse) {
      const { clickhouseUrl, clickhouseDatabase } = this.settings;
      // A comparison reads whole tables in one statement.
      const patience = role === 'verify' ? greatestPatience : undefined;
      clickhouse = new ClickHouse({ url: clickhouseUrl, database: clickhouseDatabase, role, patience });
      this.#roles.set(role, clickhouse);
    }
    return clickhouse;
  }

  /** The sink for a role. */
  sink(role: 'write' | 'snapshot'): ClickHouseSink {
    return new ClickHouseSink(this.clickhouse(role));
  }

  /** A source with its connection string in the open. */
  connected(request: ConnectRequest): Connected {
    return { request, connectionString: this.connectionString(request) };
  }

  /** The connection string in the open: never to be logged, thrown or returned. */
  connectionString(request: Pick<ConnectRequest, 'connection_string'>): string {
    return open(request.connection_string, this.settings.secretKey);
  }

  /** The registered request of a source. Errors: `not_found`, and as `askFlow`. */
  async request(source: string): Promise<ConnectRequest> {
    const ask = askFlow<ConnectRequest | null>;
    const request = await ask(this.#client, catalogWorkflowId, catalogMessages.source, source);
    if (request) return request;
    throw new SluiceError('not_found', `no source ${source} is connected`, 'See: sluice sources list', { source });
  }

  /** What the source's flow says of it. Errors: as `askFlow`. */
  async status(source: string): Promise<CaptureStatus> {
    return askFlow(this.#client, captureWorkflowId(source), captureMessages.status);
  }

  /** Has a table (`schema.name`) copied from its beginning again. Errors: as `updateFlow`. */
  async resync(source: string, table: string): Promise<void> {
    await updateFlow(this.#client, captureWorkflowId(source), captureMessages.resync, { tables: [table] });
  }

  /**
   * Tells the registry that what copies of a source (or deployment) are made from was stored. Nobody waits for it: what is
   * lost here is made up when the source is started again.
   */
  async tablesDefined(source: string): Promise<void> {
    try {
      const { workflowId, runId } = Context.current().info.workflowExecution ?? {};
      const workflow = { workflow_id: workflowId ?? '', run_id: runId ?? '' };
      const catalog = this.#client.workflow.getHandle(catalogWorkflowId);
      await catalog.signal(catalogMessages.tablesDefined, { source, workflow });
    } catch {
      // The registry is behind for a while; capturing goes on.
    }
  }

  /** Schedules of Temporal. */
  get schedules(): ScheduleClient {
    return this.#client.schedule;
  }
}

/** An error on its way out of an activity: with its place, unless it is the answer to a cancellation. */
export function activityError(error: unknown, place: Place): Error {
  return error instanceof CancelledFailure ? error : asSluiceError(error, place);
}
