/** What a person does in Temporal UI, done in a real browser on real parts: reads pages, sends updates, runs schedules, starts flows. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { openControl } from '../api/control/control.ts';
import { deploy } from '../api/control/deploy.ts';
import type { SourceAnswer } from '../api/control/shapes.ts';
import { type AssetApi, startAssetApi } from '../workers/demo/asset_api.ts';
import { readDeployments } from '../workers/deployment_files.ts';
import { readSettings } from '../workers/settings.ts';
import { openChromium } from './chromium.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';
import { TemporalUi } from './temporal_ui.ts';

const hour = 3_600_000;
const source = 'capture/shop';
const deployment =
  'name: assets\nflow: extractAssets\nschedule: { interval: 1h }\nparameters: { api_url: "${ASSET_API_URL}" }\n';

let assets: AssetApi;
let stack: ControlStack;
let clickhouse: ClickHouse;
let browser: Browser | undefined;
let missing = '';
let ui: TemporalUi;

beforeAll(async () => {
  assets = await startAssetApi({ seed: '7', rate: 0 });
  [stack, browser] = await Promise.all([
    startControlStack({}, () => ({ ASSET_API_URL: assets.url })),
    openChromium().catch(withoutBrowser),
  ]);
  if (!browser) return;
  clickhouse = new ClickHouse({ url: stack.parts.clickhouse.url, database: 'sluice', role: 'read' });
  ui = await TemporalUi.open(browser, stack.temporalUi);
  await Promise.all([startSource(), deployAssets()]);
}, 180_000);

afterAll(async () => {
  await browser?.close();
  await clickhouse?.close();
  await stack?.[Symbol.asyncDispose]();
  await assets?.close();
}, 60_000);

beforeEach(({ skip }) => {
  if (!browser) skip(missing);
});

/** Whoever has no browser may still run the other tests; where all is to be tested, it is an error. */
function withoutBrowser(error: Error): undefined {
  if (process.env.CI) throw error;
  missing = error.message;
}

async function startSource(): Promise<void> {
  await sql(`CREATE TABLE public.accounts (id int PRIMARY KEY, name text);
    CREATE TABLE public.orders (id int PRIMARY KEY, total numeric(10,2));
    INSERT INTO public.accounts SELECT i, 'name ' || i FROM generate_series(1, 200) i`);
  const config = { tables: ['accounts', 'orders'], poll_interval: 0.2 };
  const request = { id: 'shop', type: 'postgresql', connection_string: stack.parts.postgres.url, config };
  await ask('POST', '/sources/connect', request);
  await ask('POST', '/sources/shop/start', {});
  await streaming();
}

async function deployAssets(): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'sluice-ui-'));
  writeFileSync(path.join(folder, 'assets.yaml'), deployment);
  const control = openControl(readSettings(stack.environment));
  try {
    await deploy(control, readDeployments(folder));
  } finally {
    await control[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  }
}

const sql = (text: string) =>
  withConnection({ connectionString: stack.parts.postgres.url, applicationName: 'test' }, (it) => it.query(text));

async function ask(method: string, route: string, body?: object): Promise<SourceAnswer> {
  const headers = body && { 'content-type': 'application/json' };
  const answer = await fetch(`${stack.api}/api/v1${route}`, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${route}: ${text}`);
  return JSON.parse(text) as SourceAnswer;
}

const stateOf = async () => (await ask('GET', '/sources/shop')).status;
const streaming = () => until(stateOf, (status) => status === 'streaming', 60);

async function copied(table: string): Promise<number> {
  const [row] = await clickhouse.rows<{ rows: string }>(
    `SELECT toString(count()) AS rows FROM ${clickhouse.name(table)} FINAL`,
  );
  return Number(row!.rows);
}

interface Ran {
  from: string;
  to: string;
  id: string;
}

/** All finished runs of the deployment, in the order in which they ended. */
async function runs(): Promise<Ran[]> {
  return await clickhouse.rows<Ran & Record<string, string>>(
    `SELECT position_from AS from, position_to AS to, workflow_id AS id FROM ${clickhouse.name('_batches')} FINAL
     WHERE source = 'assets' AND kind = 'extract' ORDER BY recorded_at`,
  );
}

describe('the page of a source', () => {
  it('shows its state, tables and batches, and leads to live figures', async () => {
    const details = await ui.detailsText(source);
    expect(details).toMatch(/^streaming · 2 tables\n/);
    expect(details).toMatch(/accounts · streaming · 200 rows by snapshot 1/);
    expect(details).toMatch(/Last batches, UTC\n[\s\S]*snapshot of shop_accounts, 200 rows/);
    // What its activities are for.
    await ui.page
      .getByText(/^copy changes of shop, lease \d+$/)
      .first()
      .waitFor();
    const live = await ui.follow('Live');
    await live.getByText('captureLease').first().waitFor();
    await live.getByText('"lag_seconds"').first().waitFor();
    await live.close();
  });

  it('pauses and goes on by updates, and refuses those that are wrong', async () => {
    const refusal = await ui.sendUpdate(source, 'pause', '{"tables": ["accounts"]}');
    expect(refusal).toContain('`pause` is for the whole source, and takes no input (configuration). Right is no input');
    expect(await ui.sendUpdate(source, 'resync', '{"tables": ["nobody"]}')).toContain('Known are accounts, orders');
    expect(await stateOf()).toBe('streaming');

    expect(await ui.sendUpdate(source, 'pause')).toBe('');
    expect(await stateOf()).toBe('paused');
    await sql(`INSERT INTO public.accounts VALUES (201, 'while it was paused')`);
    const details = await ui.detailsText(source);
    expect(details).toMatch(/^paused · /);
    expect(details).toContain('More Actions → Send an Update: resume goes on where it stopped');
    expect(await copied('shop_accounts')).toBe(200);

    expect(await ui.sendUpdate(source, 'resume')).toBe('');
    await streaming();
    expect(
      await until(
        () => copied('shop_accounts'),
        (rows) => rows === 201,
      ),
    ).toBe(201);
  });
});

describe('a schedule', () => {
  it('is triggered, and its run shows what it did', async () => {
    await ui.trigger('assets');
    const [run] = await until(runs, (all) => all.length === 1);
    // The first run pulls all there is.
    expect(run).toMatchObject({ from: '', id: expect.stringMatching(/^assets\/-/) });
    const details = await until(
      () => ui.detailsText(run!.id),
      (text) => text.startsWith('done'),
    );
    expect(details).toMatch(/Deployment assets, beginning – .*: [\d,]+ rows in 1 file\./);
    expect(await copied('assets')).toBeGreaterThan(1_000);
  });

  it('runs intervals of the past again: each once, in order, and the kept position stays', async () => {
    const before = await runs();
    const last = Math.floor(Date.now() / hour) * hour - 30 * hour;
    const ends = [...Array(5).keys()].map((index) => new Date(last + (index - 4) * hour));
    // Both ends belong to it.
    await ui.backfill('assets', ends[0]!, ends.at(-1)!);
    const within = (all: Ran[]) => all.filter(({ to }) => Date.parse(to) <= last);
    const ran = within(await until(runs, (all) => within(all).length >= 5, 60));
    expect(ran).toEqual(
      ends.map((end) => ({
        from: new Date(end.getTime() - hour).toISOString(),
        to: end.toISOString(),
        id: `assets/-${end.toISOString().replace('.000', '')}`,
      })),
    );
    await ui.trigger('assets');
    const after = await until(runs, (all) => all.length > before.length + 5);
    expect(after.at(-1)!.from).toBe(before.at(-1)!.to);
    expect(within(after)).toEqual(ran);
  });
});

describe('the form that starts a flow', () => {
  const form = { type: 'backfill', taskQueue: 'sluice' };
  const stretch = { from: '2026-01-01T00:00:00Z', to: '2026-01-01T02:00:00Z' };

  it('shows a right input when the given one is wrong', async () => {
    await ui.start({
      ...form,
      id: 'backfill/wrong',
      input: JSON.stringify({ deployment: 'assets', since: 'January' }),
    });
    await ui.page.getByText('Failed', { exact: true }).first().waitFor();
    const said = await ui.page.getByText('Right is e.g.').first().textContent();
    expect(said).toContain('unknown key `since`; known are deployment, from, to, only_missing');
    expect(said).toContain('{\\"deployment\\": \\"assets\\", \\"from\\": \\"2026-01-01\\"');
  });

  it('starts one whose input is right', async () => {
    await ui.start({ ...form, id: 'backfill/right', input: JSON.stringify({ deployment: 'assets', ...stretch }) });
    const details = await until(
      () => ui.detailsText('backfill/right'),
      (text) => text.startsWith('done'),
    );
    expect(details).toContain('Backfill of assets, 2026-01-01 00:00 – 02:00 UTC. 2 intervals run: 0 rows.');
    await ui.list('SluiceDeployment = "assets" AND SluiceFlow = "backfill" AND SluicePhase = "done"');
    await ui.page.getByRole('link', { name: 'backfill/right' }).first().waitFor();
  });
});
