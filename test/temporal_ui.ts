/** What a person does in Temporal UI, step by step: for its test, and for the pictures of docs/temporal-ui.md. */
import type { Browser, FrameLocator, Locator, Page } from 'playwright-core';

export interface Form {
  type: string;
  id: string;
  taskQueue: string;
  /** JSON. */
  input: string;
}

export type Tab = 'History' | 'Pending Activities' | 'Queries' | 'User Metadata' | 'Search Attributes';

/** Milliseconds that any answer of the page may take. */
const patience = 20_000;

/** The page of a flow ends with a line of nothing (flows/markdown.ts); its summary, in a frame of its own, does not. */
const detailsFrame = 'iframe[title=output][src*="%C2%A0"]';

export class TemporalUi {
  readonly page: Page;
  readonly #namespace: string;

  private constructor(page: Page, address: string) {
    this.page = page;
    this.#namespace = `${address}/namespaces/default`;
    page.setDefaultTimeout(patience);
  }

  /** Opens a window of the size that is given, with the columns of a person who has set them. */
  static async open(browser: Browser, address: string, size = { width: 1200, height: 900 }): Promise<TemporalUi> {
    const page = await browser.newPage({ viewport: size });
    const columns = ['Status', 'SluicePhase', 'Workflow ID', 'Type', 'Start'].map((label) => ({ label }));
    const stored = { 'namespace-workflow-table-columns': { default: columns }, savedQueryNavOpen: false };
    const script = Object.entries(stored).map(([name, value]) => {
      return `localStorage.setItem('${name}', ${JSON.stringify(JSON.stringify(value))});`;
    });
    await page.addInitScript({ content: script.join('\n') });
    return new TemporalUi(page, address);
  }

  /** The list of flows. */
  async list(query = ''): Promise<void> {
    const filter = query === '' ? '' : `?query=${encodeURIComponent(query)}`;
    await this.page.goto(`${this.#namespace}/workflows${filter}`);
    await this.page
      .getByRole('link', { name: 'Start Workflow' })
      .or(this.page.getByText('Start Workflow'))
      .first()
      .waitFor();
  }

  /** The page of a flow's last run. */
  async flow(id: string, tab: Tab = 'History'): Promise<void> {
    await this.page.goto(`${this.#namespace}/workflows/${encodeURIComponent(id)}`);
    await this.page.waitForURL(/\/history/);
    await this.tab(tab);
  }

  async tab(tab: Tab): Promise<void> {
    const link = this.page.getByRole('link', { name: tab }).or(this.page.getByRole('tab', { name: tab }));
    if (tab !== 'History') await link.first().click();
  }

  /** The page that the flow keeps about itself. */
  details(): FrameLocator {
    return this.page.frameLocator(detailsFrame).last();
  }

  /** How far down that page reaches, in pixels. */
  async detailsEnd(): Promise<number> {
    // The frame grows with its text.
    await this.page.waitForTimeout(1000);
    const box = await this.page.locator(detailsFrame).last().boundingBox();
    return Math.ceil((box?.y ?? 0) + (box?.height ?? 0));
  }

  async detailsText(id: string): Promise<string> {
    await this.flow(id, 'User Metadata');
    for (const end = Date.now() + patience; ; ) {
      try {
        const main = this.details().locator('main');
        await main.waitFor({ timeout: 2000 });
        const [text = ''] = await main.allInnerTexts();
        if (text !== '') return text;
      } catch (error) {
        // The frame is made again whenever what it shows has come anew.
        if (Date.now() > end) throw error;
      }
    }
  }

  /** Follows a link of that page; it opens a window of its own. */
  async follow(link: string): Promise<Page> {
    const opened = this.page.waitForEvent('popup');
    await this.details().getByRole('link', { name: link, exact: true }).click();
    const page = await opened;
    page.setDefaultTimeout(patience);
    return page;
  }

  /** Opens the dialog with all updates that the flow knows. */
  async openUpdates(id: string): Promise<void> {
    await this.flow(id);
    await this.page.getByRole('button', { name: 'More Actions' }).click();
    await this.page.getByRole('menuitem', { name: 'Send an Update' }).first().click();
    await this.page.getByTestId('update-select-button').first().click();
  }

  /** Sends an update as a person does, and returns why it is refused; '' when it was done. */
  async sendUpdate(id: string, name: string, input = ''): Promise<string> {
    await this.openUpdates(id);
    const dialog = this.#dialog();
    await dialog
      .getByRole('option')
      .filter({ hasText: new RegExp(`^\\s*${name}\\b`) })
      .click();
    if (input !== '') await this.#type(dialog, input);
    await dialog.getByTestId('confirm-modal-button').click();
    for (const end = Date.now() + patience; ; ) {
      if (!(await dialog.isVisible())) return '';
      if (Date.now() > end) throw new Error(`the update ${name} was not answered: ${await dialog.textContent()}`);
      const [, said = ''] = (await dialog.allInnerTexts()).join('').split('payload supported)');
      const refusal = said.replace(/Cancel\s+Submit\s*$/, '').trim();
      if (refusal !== '' && !refusal.includes('in progress')) return refusal;
      await this.page.waitForTimeout(100);
    }
  }

  /** Starts a flow by its form; the page of its run follows. */
  async start({ type, id, taskQueue, input }: Form): Promise<void> {
    await this.page.goto(`${this.#namespace}/workflows/start-workflow`);
    await this.page.getByTestId('workflowId').fill(id);
    await this.page.getByTestId('taskQueue').fill(taskQueue);
    await this.page.getByTestId('workflowType').fill(type);
    await this.#type(this.page.locator('body'), input);
    // The form grows by the state of the queue, and the button moves.
    await this.page.getByText('Task Queue is Active').waitFor();
    await this.page.getByTestId('start-workflow-button').click();
    await this.page.getByRole('link', { name: 'Workflow started successfully' }).first().click();
    await this.page.waitForURL(/\/history/);
  }

  /** The page of a schedule. */
  async schedule(id: string): Promise<void> {
    await this.page.goto(`${this.#namespace}/schedules/${encodeURIComponent(id)}`);
    await this.page.getByRole('heading', { name: id }).first().waitFor();
  }

  async trigger(id: string): Promise<void> {
    await this.#scheduleAction(id, 'Trigger');
    await this.#dialog().getByTestId('confirm-modal-button').click();
    await this.#dialog().waitFor({ state: 'hidden' });
  }

  /** Fills the dialog that runs a schedule's times of [from, to] again. Seconds are left out. */
  async openBackfill(id: string, from: Date, to: Date): Promise<void> {
    await this.#scheduleAction(id, 'Backfill');
    const dialog = this.#dialog();
    for (const [index, time] of [from, to].entries()) {
      await this.#pickDay(dialog.getByTestId('datepicker').nth(index), time);
      const [hour = '', minute = '', second = ''] = time.toISOString().slice(11, 19).split(':');
      for (const [unit, text] of Object.entries({ hour, minute, second })) {
        await dialog.getByTestId(unit).nth(index).fill(text);
      }
    }
  }

  async backfill(id: string, from: Date, to: Date): Promise<void> {
    await this.openBackfill(id, from, to);
    await this.#dialog().getByTestId('confirm-modal-button').click();
    await this.#dialog().waitFor({ state: 'hidden' });
  }

  async #scheduleAction(id: string, action: string): Promise<void> {
    await this.schedule(id);
    await this.page.locator('#schedule-actions-menu-button').click();
    await this.page.getByRole('menuitem', { name: action }).first().click();
  }

  async #pickDay(field: Locator, day: Date): Promise<void> {
    const month = day.toLocaleString('en-GB', { month: 'long', year: 'numeric', timeZone: 'UTC' });
    const dialog = this.#dialog();
    await field.click();
    while (!(await dialog.getByText(month, { exact: true }).isVisible())) {
      await dialog.getByTitle('Previous Month').click();
    }
    await dialog.getByRole('button', { name: String(day.getUTCDate()), exact: true }).click();
  }

  #dialog(): Locator {
    return this.page.locator('dialog[open], [role=dialog]:visible').first();
  }

  async #type(scope: Locator, text: string): Promise<void> {
    await scope.locator('[contenteditable=true]').first().click();
    await this.page.keyboard.insertText(text);
    await this.page.keyboard.press('Tab');
  }
}
