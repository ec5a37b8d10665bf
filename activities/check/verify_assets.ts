/**
 * Whether the copy of a deployment equals the API's assets, while both move.
 *
 * Up to the kept position every asset must be in the copy as the API has it. Both are read in order of `updated_at`, so
 * memory holds a stretch at a time. What differs is looked at again at the end: an asset that has changed meanwhile was
 * updated after that position, and is no difference.
 */
import { randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { Context } from '@temporalio/activity';
import type { Client } from '@temporalio/client';
import { SluiceError } from '../../model/errors.ts';
import type { ExtractRequest } from '../../model/extract.ts';
import { parseInstant } from '../../model/instant.ts';
import type { CaptureContext } from '../capture/context.ts';
import { activityError } from '../capture/context.ts';
import type { VerifySum } from '../capture/contract.ts';
import { AssetApi } from '../extract/asset_api.ts';
import { assetTable, explainAssetVersion } from '../extract/asset_copy.ts';
import { type Fields, fieldsOf, findFault } from '../extract/asset_row.ts';
import { AssetWalk, type Found } from '../extract/asset_walk.ts';
import { readReference, resolveOutgoing } from '../extract/outgoing.ts';
import { keptPosition } from '../extract/records.ts';
import { describeSchedule } from '../extract/schedule_times.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { type Problem, type TableVerification, verifySum } from './verify.ts';
import { keyTextOfOutput } from './verify_keys.ts';
import { heldVersions } from './verify_rejects.ts';
import { keyId } from './verify_sides.ts';
import { createVerificationTable, storeVerification, type Verification } from './verify_store.ts';

/** Assets that are compared at once, at least. */
const stretch = 20_000;
/** Asked for at once. */
const pageSize = 1_000;
const mostKeys = 100;
/** Differences that are looked at again; beyond them the counts are only a lower bound. */
const mostSuspects = 10_000;

interface Suspect {
  id: string;
  problem: Extract<Problem, 'missing' | 'extra' | 'different'>;
  columns: string[];
}

/** Compares, stores the result, and answers the sum. Errors: `not_found`, those of the API and of ClickHouse. */
export async function verifyAssets(context: CaptureContext, client: Client, deployment: string): Promise<VerifySum> {
  const clickhouse = context.clickhouse('verify');
  const verification: Verification = {
    id: randomUUID(),
    source: deployment,
    started_at: new Date().toISOString(),
    finished_at: null,
    status: 'running',
    identical: false,
    tables: [],
    error: null,
  };
  await createVerificationTable(clickhouse);
  try {
    const { input } = await describeSchedule(client, deployment);
    const result = await compare(clickhouse, input as ExtractRequest);
    const done = { status: 'finished', finished_at: new Date().toISOString(), identical: result.identical } as const;
    await storeVerification(clickhouse, { ...verification, ...done, tables: [result] });
    return verifySum([result], verification.id);
  } catch (error) {
    const report = activityError(error, { source: deployment });
    if (!(report instanceof SluiceError)) throw report;
    const failed = { status: 'failed', finished_at: new Date().toISOString(), error: report.report() } as const;
    await storeVerification(clickhouse, { ...verification, ...failed }).catch(() => {});
    throw report;
  }
}

async function compare(clickhouse: ClickHouse, request: ExtractRequest): Promise<TableVerification> {
  const begun = performance.now();
  const { position } = await keptPosition(clickhouse, request.deployment);
  if (position === '') {
    const remedy = `Run it first: npx sluice run ${request.deployment}.`;
    throw new SluiceError('not_found', `${request.deployment} has not run yet`, remedy, { source: request.deployment });
  }
  const signal = Context.current().cancellationSignal;
  const token = request.token === undefined ? undefined : readReference(request.token);
  const api = new AssetApi({ url: resolveOutgoing(request.api_url), token, pageSize, signal });
  try {
    const comparison = new AssetComparison(clickhouse, api, request.deployment, parseInstant(position) ?? 0n);
    const found = await comparison.run();
    return { ...found, duration_ms: Math.round(performance.now() - begun) };
  } finally {
    await api.close();
  }
}

class AssetComparison {
  readonly #clickhouse: ClickHouse;
  readonly #api: AssetApi;
  readonly #asset: string;
  /** All before this instant must be equal. */
  readonly #until: bigint;
  readonly #found: TableVerification;
  #suspects: Suspect[] = [];
  /** Those that a check holds back, by their keys. */
  #rejects = new Map<string, bigint>();

  constructor(clickhouse: ClickHouse, api: AssetApi, asset: string, until: bigint) {
    this.#clickhouse = clickhouse;
    this.#api = api;
    this.#asset = asset;
    this.#until = until;
    const counts = { source_rows: 0, copy_rows: 0, missing: 0, extra: 0, different: 0, moving: 0, rejected: 0 };
    this.#found = {
      asset_id: asset, identical: false, ...counts, at_least: false, keys: [], error: null, duration_ms: 0,
    }; // biome-ignore format: one line
  }

  async run(): Promise<TableVerification> {
    this.#rejects = await heldVersions(this.#clickhouse, assetTable(this.#asset));
    const walk = new AssetWalk(this.#api, { since: 0n, until: this.#until, pageSize });
    let held: Found[] = [];
    let from = 0n;
    for (let found = await walk.next(); found; found = await walk.next()) {
      held.push(...found);
      if (held.length < stretch || walk.reached === from) continue;
      await this.#compareStretch(
        from,
        walk.reached,
        held.filter(({ at }) => at !== undefined && at < walk.reached),
      );
      held = held.filter(({ at }) => at !== undefined && at >= walk.reached);
      from = walk.reached;
    }
    await this.#compareStretch(from, this.#until, held);
    await this.#lookAgain();
    const { missing, extra, different } = this.#found;
    this.#found.identical = missing + extra + different === 0 && !this.#found.at_least;
    return this.#found;
  }

  /** Compares assets that were updated in [from, to). */
  async #compareStretch(from: bigint, to: bigint, found: Found[]): Promise<void> {
    const copy = await this.#copyRows(
      `toUnixTimestamp64Nano(assumeNotNull(updated_at)) >= ${from} AND toUnixTimestamp64Nano(assumeNotNull(updated_at)) < ${to}`,
    );
    this.#found.copy_rows += copy.size;
    for (const one of found) {
      const fields = fieldsOf(one, 0n);
      const [id, , , , , deleted] = fields;
      const at = one.at ?? 0n;
      if (!id || deleted === '1') continue;
      this.#found.source_rows++;
      const row = copy.get(id);
      copy.delete(id);
      if (row === undefined) this.#suspect({ id, problem: 'missing', columns: [] }, fields, at);
      else {
        const columns = comparedColumns.filter((_, index) => row[index] !== comparable(fields, at)[index]);
        if (columns.length > 0) this.#suspect({ id, problem: 'different', columns }, fields, at);
      }
    }
    // Whatever is left is in the copy alone.
    for (const id of copy.keys()) this.#suspect({ id, problem: 'extra', columns: [] });
  }

  /** `at`: when the API says that the asset was updated. */
  #suspect(suspect: Suspect, fields?: Fields, at = 0n): void {
    // What cannot enter the copy is held back as a reject, and is no loss. One of an earlier state of the asset says nothing.
    const reject = this.#rejects.get(keyId([keyTextOfOutput(idColumn, suspect.id)]));
    const held = fields && reject !== undefined && explainAssetVersion(reject).updated >= at;
    if (held || (fields && findFault([...fields.slice(0, 6), '0']))) this.#found.rejected++;
    else if (this.#suspects.length < mostSuspects) this.#suspects.push(suspect);
    else this.#found.at_least = true;
  }

  /** Counts what is still different, and leaves out what has moved meanwhile. */
  async #lookAgain(): Promise<void> {
    const suspects = this.#suspects;
    if (suspects.length === 0) return;
    const later = await this.#laterInApi();
    for (const { id, problem, columns } of suspects) {
      if (later.has(id)) continue;
      this.#found[problem]++;
      if (this.#found.keys.length >= mostKeys) continue;
      this.#found.keys.push({ problem, key: { id }, ...(columns.length > 0 ? { columns } : {}) });
    }
  }

  /** Assets that were updated since the kept position. */
  async #laterInApi(): Promise<Set<string>> {
    const walk = new AssetWalk(this.#api, { since: this.#until, until: 1n << 62n, pageSize });
    const later = new Set<string>();
    for (let found = await walk.next(); found; found = await walk.next()) {
      for (const { item } of found) later.add(String(item.id));
    }
    return later;
  }

  async #copyRows(where: string): Promise<Map<string, (string | null)[]>> {
    const rows = await this.#clickhouse.rows<Record<'id' | 'name' | 'kind' | 'value' | 'at', string | null>>(
      `SELECT id, name, kind, toString(value) AS value, toString(toUnixTimestamp64Nano(assumeNotNull(updated_at))) AS at
       FROM ${this.#clickhouse.name(this.#asset)} FINAL WHERE ${where}`,
    );
    return new Map(rows.map(({ id, name, kind, value, at }) => [id ?? '', [name, kind, value, at]]));
  }
}

const idColumn = assetTable('').columns.find((column) => column.name === 'id')!;
const comparedColumns = assetTable('')
  .columns.map((column) => column.name)
  .filter((name) => name !== 'id');

function comparable([, name = null, kind = null, value = null]: Fields, at: bigint): (string | null)[] {
  return [name, kind, value, String(at)];
}
