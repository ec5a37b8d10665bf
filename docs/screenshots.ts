/**
 * Makes the pictures of docs/temporal-ui.md and of the console from a stack that runs (`npm start`):
 *
 *   node --import tsx docs/screenshots.ts
 *
 * It brings the stack into the states that are shown, by REST and as a person would in Temporal UI, and takes away what it
 * made. It needs Chromium; `pngquant` makes the files smaller when it is there.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { Page } from 'playwright-core';
import { openChromium } from '../test/chromium.ts';
import { TemporalUi } from '../test/temporal_ui.ts';
import { projectFolder, readEndpoints, readSettings } from '../workers/settings.ts';

const folder = path.join(projectFolder, 'docs', 'images');
/** No picture is larger. */
const mostBytes = 150_000;
const day = 86_400_000;

const endpoints = readEndpoints(readSettings().home);
if (!endpoints) throw new Error('no stack runs: `npm start` brings one, in the same SLUICE_HOME');

/** What of the API's answers is used here. */
interface Answer {
  status: string;
  tables: { status: string }[];
  workflow: { id: string };
}

async function ask(method: string, route: string, body?: object): Promise<Answer> {
  const headers = body === undefined ? undefined : { 'content-type': 'application/json' };
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const answer = await fetch(`${endpoints!.api}${route}`, { method, headers, body: sent });
  const text = await answer.text();
  if (!answer.ok && answer.status !== 404) throw new Error(`${method} ${route} answered ${answer.status}: ${text}`);
  return JSON.parse(text || '{}') as Answer;
}

async function until(look: () => Promise<unknown>, seconds = 60): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!(await look())) {
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${look}`);
    await sleep(300);
  }
}

const hasStatus = (source: string, status: string) => async () =>
  (await ask('GET', `/api/v1/sources/${source}`)).status === status;

/** Connects a source to the demo's own database, and waits until it streams. */
async function addSource(id: string, tables: string[]): Promise<void> {
  const config = { tables };
  const body = { id, type: 'postgresql', connection_string: endpoints!.postgres, config };
  await ask('POST', '/api/v1/sources/connect', body);
  await ask('POST', `/api/v1/sources/${id}/start`, {});
  await until(hasStatus(id, 'streaming'));
}

/** A shop, one of whose tables goes away while it is copied. */
async function failTable(database: pg.Client): Promise<void> {
  await database.query(`
    CREATE TABLE shop_customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE shop_orders (id int PRIMARY KEY, customer int NOT NULL, total numeric(10, 2) NOT NULL);
    INSERT INTO shop_customers SELECT n, 'customer ' || n FROM generate_series(1, 5000) AS n;
    INSERT INTO shop_orders SELECT n, 1 + n % 5000, n * 1.25 FROM generate_series(1, 20000) AS n`);
  await addSource('shop', ['shop_customers', 'shop_orders']);
  await database.query('DROP TABLE shop_orders');
  await ask('POST', '/api/v1/sources/shop/pause', {});
  await ask('POST', '/api/v1/sources/shop/resume', {});
  await until(async () => (await ask('GET', '/api/v1/sources/shop')).tables.some((one) => one.status === 'failed'));
}

async function removeAll(database: pg.Client): Promise<void> {
  for (const id of ['shop', 'reports']) await ask('DELETE', `/api/v1/sources/${id}?drop_copies=true`);
  await database.query('DROP TABLE IF EXISTS shop_orders, shop_customers');
}

/** A window that is higher than all pages: then nothing lies over them that would scroll them. */
const window = { width: 1200, height: 2000 };

/** Writes a picture of the window, or of its upper part, and says how large it is. */
async function shoot(page: Page, name: string, height?: number): Promise<void> {
  // Let what moves come to rest, e.g. frames that grow with their text.
  await sleep(1500);
  const file = path.join(folder, `${name}.png`);
  const clip = height === undefined ? undefined : { x: 0, y: 0, width: window.width, height };
  await page.screenshot({ path: file, animations: 'disabled', caret: 'hide', clip });
  try {
    execFileSync('pngquant', ['--force', '--output', file, '--quality', '60-95', '64', file], { stdio: 'ignore' });
  } catch {
    // Larger, and just as good to look at.
  }
  const { size } = statSync(file);
  console.log(`${name}.png ${Math.round(size / 1000)} kB`);
  if (size > mostBytes) throw new Error(`${name}.png is larger than ${mostBytes / 1000} kB`);
}

/** The page that a flow keeps about itself. */
async function shootDetails(ui: TemporalUi, id: string, name: string): Promise<void> {
  await ui.page.setViewportSize(window);
  await ui.detailsText(id);
  await shoot(ui.page, name, await ui.detailsEnd());
}

async function shootSources(ui: TemporalUi): Promise<void> {
  const { page } = ui;
  await shootDetails(ui, 'capture/postgres_main', 'source');
  await ui.tab('Pending Activities');
  await shoot(page, 'live', 1100);
  await shootDetails(ui, 'capture/reports', 'paused');
  await shootDetails(ui, 'capture/shop', 'failed-table');
  await shootDetails(ui, 'verify/postgres_main', 'verify');
  await page.setViewportSize({ ...window, height: 860 });
  await ui.openUpdates('capture/postgres_main');
  await shoot(page, 'updates');
  const refused = ui.sendUpdate('capture/reports', 'resume', '{"tables": ["currencies"]}');
  if (!(await refused).includes('Right is')) throw new Error('it was not refused');
  await shoot(page, 'update-refused');
}

async function shootDeployments(ui: TemporalUi, run: string): Promise<void> {
  const { page } = ui;
  await shootDetails(ui, run, 'run');
  await page.setViewportSize(window);
  await ui.schedule('assets');
  await shoot(page, 'schedule', 760);
  await page.setViewportSize({ ...window, height: 900 });
  await ui.openBackfill('assets', midnight(1), midnight(0));
  await shoot(page, 'schedule-backfill');
  const form = { type: 'extractAssets', id: 'assets/by-hand', taskQueue: 'sluice', input: '{"deployment": "assets"}' };
  await page.setViewportSize(window);
  await ui.start(form);
  await page.getByText('Right is e.g.').first().waitFor();
  await shoot(page, 'wrong-input', 860);
  // Days on which assets were changed that have not been changed since.
  const stretch = { from: midnight(27).toISOString(), to: midnight(26).toISOString() };
  const { workflow } = await ask('POST', '/api/v1/deployments/assets/backfill', stretch);
  await sleep(10_000);
  await shootDetails(ui, workflow.id, 'backfill');
}

async function shootList(ui: TemporalUi): Promise<void> {
  await ui.page.setViewportSize({ ...window, height: 760 });
  await ui.list('ExecutionStatus = "Running"');
  await shoot(ui.page, 'flows');
}

/** The midnight, in UTC, that was so many days ago; 0 = the last one. */
function midnight(daysAgo: number): Date {
  return new Date(Math.floor(Date.now() / day - daysAgo) * day);
}

async function main(): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const browser = await openChromium();
  const database = new pg.Client({ connectionString: endpoints!.postgres });
  await database.connect();
  try {
    await removeAll(database);
    await failTable(database);
    await addSource('reports', ['currencies']);
    await ask('POST', '/api/v1/sources/reports/pause', {});
    await ask('POST', '/api/v1/verify/postgres_main', {});
    const run = await ask('POST', '/api/v1/deployments/assets/run', {});
    const ui = await TemporalUi.open(browser, endpoints!.temporal_ui);
    await until(async () => (await ui.detailsText('verify/postgres_main')).startsWith('identical'), 120);
    await shootSources(ui);
    await shootDeployments(ui, run.workflow.id);
    await shootList(ui);
    const page = await browser.newPage({ viewport: { width: 1200, height: 1250 } });
    await page.goto(endpoints!.console);
    await page.getByRole('heading', { name: 'assets' }).waitFor();
    await sleep(5_000);
    await shoot(page, 'console');
  } finally {
    await removeAll(database).catch((error) => console.error(error));
    await database.end();
    await browser.close();
  }
}

await main();
