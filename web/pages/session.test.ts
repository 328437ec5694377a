import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { newMachineId } from '../../protocol/ids.ts';
import { missingForPages, type PageTests, screenshot, startPageTests } from '../testing/browser.ts';
import { type FakeApi, startFakeApi } from '../testing/fake-api.ts';
import { missingForDesktop, startDesktop, type TestDesktop } from '../testing/streams.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const LOGIN_URL = 'https://auth.openai.com/oauth/authorize?client_id=app&state=xyz';

/** The machine of a session boots until the person can sign in. */
function bootUntilSignIn(api: FakeApi, id: string): void {
  api.enter(id, 'preparing', { browserMachineId: newMachineId() });
  for (const point of ['hypervisor', 'kernel', 'init', 'agent', 'desktop', 'browser', 'provider']) {
    api.machineEvent(id, 'checkpoint', point);
  }
  api.enter(id, 'waiting_for_person', { loginUrl: LOGIN_URL });
}

async function connect(page: Page, api: FakeApi): Promise<string> {
  await page.goto(api.url);
  await page.getByRole('button', { name: 'Connect again: OpenAI Codex' }).click();
  await page.waitForURL('**/sessions/s_*');
  return api.newest().id;
}

const step = (page: Page, title: string) => page.getByRole('listitem').filter({ hasText: title }).first();

describe.skipIf(missingForPages.length > 0)(`login page (lacking: ${missingForPages.join(' ')})`, () => {
  let tests: PageTests;
  let api: FakeApi;
  beforeAll(async () => {
    tests = await startPageTests();
  });
  afterAll(() => tests[Symbol.asyncDispose]());
  beforeEach(async () => {
    api = await startFakeApi({ dist: tests.dist });
  });
  afterEach(() => api[Symbol.asyncDispose]());

  it('follows a login step by step to the connected account', async () => {
    const { page, complaints } = await tests.visit();
    const id = await connect(page, api);
    await page.getByRole('heading', { name: 'Connect OpenAI Codex' }).waitFor();
    expect(await step(page, 'Preparing the machine').textContent()).toContain('still to come');

    api.enter(id, 'preparing', { browserMachineId: newMachineId() });
    api.machineEvent(id, 'checkpoint', 'hypervisor');
    await page.getByText('Sandbox started').waitFor();
    expect(await page.locator('[aria-current="step"]').textContent()).toContain('Preparing the machine');
    await screenshot(page, 'session-preparing');

    api.enter(id, 'capturing');
    api.enter(id, 'storing');
    api.enter(id, 'installing', { cliMachineId: api.data.machines[0]?.id ?? null });
    api.machineEvent(id, 'step', 'copy_credential', 12);
    await page.getByText('Copy credential').waitFor();
    api.enter(id, 'completed', {
      credentialId: api.data.credentials[0]?.id ?? null,
      verification: 'Logged in using ChatGPT',
    });
    await page.getByRole('heading', { name: 'Connected as ada@example.org' }).waitFor();
    expect(await page.getByText('Logged in using ChatGPT').isVisible()).toBe(true);
    expect(await page.getByRole('button', { name: 'Cancel' }).count()).toBe(0);
    expect(await page.getByRole('link', { name: 'Open terminal' }).getAttribute('href')).toBe(
      `/machines/${api.data.machines[0]?.id}/terminal`,
    );
    await screenshot(page, 'session-completed');
    expect(complaints).toEqual([]);
  });

  it('names a failure, what to do, and the lines that prove it', async () => {
    const { page, complaints } = await tests.visit();
    const [failed] = api.data.sessions;
    await page.goto(`${api.url}/sessions/${failed?.id}`);
    const panel = page.getByRole('alert');
    await panel.getByRole('heading', { name: 'The login failed' }).waitFor();
    const text = (await panel.textContent()) ?? '';
    expect(text).toContain(failed?.error?.message);
    expect(text).toContain(failed?.error?.remedy);
    expect(text).toContain('machine_boot_stalled');
    expect(await panel.getByText('Cannot establish any listening sockets').isVisible()).toBe(true);
    expect(await step(page, 'Preparing the machine').textContent()).toContain('stopped here');
    await screenshot(page, 'session-failed');
    await panel.getByRole('link', { name: 'Evidence of the machine' }).click();
    await page.getByRole('heading', { name: 'Browser machine' }).waitFor();
    expect(complaints).toEqual([]);
  });

  it('counts the time left by the server, also where the clock is wrong', async () => {
    const { page } = await tests.visit();
    await page.clock.install({ time: Date.now() + 3_600_000 });
    await connect(page, api);
    expect(await page.getByRole('timer').textContent()).toMatch(/^(9:[345]\d|10:0[01])$/);
  });

  it('cancels only after asking', async () => {
    const { page } = await tests.visit();
    const id = await connect(page, api);
    api.enter(id, 'preparing');
    await page.getByRole('button', { name: 'Cancel' }).click();
    const dialog = page.getByRole('dialog', { name: 'Cancel this login?' });
    await dialog.getByRole('button', { name: 'Keep it' }).click();
    expect(api.newest().state).toBe('preparing');
    await page.getByRole('button', { name: 'Cancel' }).click();
    await dialog.getByRole('button', { name: 'Cancel the login' }).click();
    await page.getByRole('heading', { name: 'The login was cancelled' }).waitFor();
    expect(api.newest().state).toBe('cancelled');
    // What somebody asked for is no alarm.
    expect(await page.getByRole('alert').count()).toBe(0);
  });

  it('hands a pasted callback address to the CLI, when there is something to hand it to', async () => {
    const { page } = await tests.visit();
    const id = await connect(page, api);
    const summary = page.getByText('Sign in with your own browser instead');
    await page.getByRole('heading', { name: 'Connect OpenAI Codex' }).waitFor();
    expect(await summary.count()).toBe(0);
    bootUntilSignIn(api, id);
    await summary.click();
    expect(await page.getByRole('link', { name: "the provider's page" }).getAttribute('href')).toBe(
      LOGIN_URL,
    );
    await page.getByLabel('Code or address').fill(' http://localhost:1455/auth/callback?code=abc ');
    await page.getByRole('button', { name: 'Hand it to the CLI' }).click();
    await page.getByText('Handed over').waitFor();
    expect(api.inputs).toEqual(['http://localhost:1455/auth/callback?code=abc']);
    expect(await page.getByLabel('Code or address').inputValue()).toBe('');
  });

  it('offers nothing to open outside when the test identity provider is used', async () => {
    const { page } = await tests.visit();
    await page.goto(api.url);
    await page.getByRole('button', { name: 'Connect with the test identity provider' }).click();
    await page.waitForURL('**/sessions/s_*');
    expect(api.newest().realm).toBe('test');
    bootUntilSignIn(api, api.newest().id);
    await page.getByText('Sign in with your own browser instead').click();
    await page.getByLabel('Code or address').waitFor();
    expect(await page.getByRole('link', { name: "the provider's page" }).count()).toBe(0);
  });

  it('says when a session does not exist, once', async () => {
    const { page } = await tests.visit();
    await page.goto(`${api.url}/sessions/s_aaaaaaaaaaaaaaaaaaaa`);
    await page.getByRole('heading', { name: 'There is no such login' }).waitFor();
    expect(await page.getByRole('alert').textContent()).toContain('not_found');
  });
});

const lacking = [...missingForPages, ...missingForDesktop];
describe.skipIf(lacking.length > 0)(`live desktop (lacking: ${lacking.join(' ')})`, () => {
  let tests: PageTests;
  let desktop: TestDesktop;
  let api: FakeApi;
  beforeAll(async () => {
    tests = await startPageTests();
    desktop = await startDesktop();
  });
  afterAll(async () => {
    await desktop[Symbol.asyncDispose]();
    await tests[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    api = await startFakeApi({ dist: tests.dist, rfbSocket: desktop.rfbSocket });
  });
  afterEach(() => api[Symbol.asyncDispose]());

  const contentOf = (name: string) =>
    expect.poll(() => readFile(join(desktop.directory, name), 'utf8').catch(() => ''), { timeout: 15_000 });

  /** The window asks for what is pasted after the keys came, so an Enter can be ahead of it: a person presses again. */
  const contentAfterEnter = (page: Page, name: string) =>
    expect.poll(
      async () => {
        await page.keyboard.press('Enter');
        return readFile(join(desktop.directory, name), 'utf8').catch(() => '');
      },
      { timeout: 30_000, interval: 500 },
    );

  it('takes typing and pasting, says which host to expect, and can be left by keyboard', async () => {
    const { page, complaints } = await tests.visit();
    const id = await connect(page, api);
    bootUntilSignIn(api, id);
    const screen = page.getByRole('application', { name: 'Live desktop' });
    await page.locator('.screen[data-phase="live"]').waitFor();
    await page.getByText('auth.openai.com').waitFor();

    await screen.click();
    await page.keyboard.type('echo typed by hand > typed.txt');
    await page.keyboard.press('Enter');
    await contentOf('typed.txt').toBe('typed by hand\n');

    await page.getByLabel("Text to paste into the machine's browser").fill('echo pasted Grüße > pasted.txt');
    await page.getByRole('button', { name: 'Paste into the machine' }).click();
    expect(await page.getByLabel("Text to paste into the machine's browser").inputValue()).toBe('');
    await contentAfterEnter(page, 'pasted.txt').toBe('pasted Grüße\n');

    await page.evaluate(() => navigator.clipboard.writeText('echo from my clipboard > clipboard.txt'));
    await page.keyboard.press('Control+v');
    await contentAfterEnter(page, 'clipboard.txt').toBe('from my clipboard\n');

    await page.keyboard.press('Shift+Escape');
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe('Actual size');
    await screenshot(page, 'session-live');
    expect(complaints).toEqual([]);
  });

  it('fits a phone and a dark room', async () => {
    for (const dark of [false, true]) {
      const { page, complaints } = await tests.visit({ width: 390, height: 844, dark });
      const id = api.data.sessions.find(({ endedAt }) => endedAt === null)?.id ?? (await connect(page, api));
      if (api.newest().state === 'queued') bootUntilSignIn(api, id);
      await page.goto(`${api.url}/sessions/${id}`);
      await page.locator('.screen[data-phase="live"]').waitFor();
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(390);
      await screenshot(page, `session-live-390-${dark ? 'dark' : 'light'}`);
      expect(complaints).toEqual([]);
    }
  });

  it('has a bare page with only the screen, for embedding', async () => {
    const { page, complaints } = await tests.visit();
    const id = await connect(page, api);
    bootUntilSignIn(api, id);
    await page.goto(`${api.url}/sessions/${id}/desktop`);
    await page.locator('.screen[data-phase="live"]').waitFor();
    expect(await page.getByRole('button').count()).toBe(0);
    expect(await page.getByRole('navigation').count()).toBe(0);
    await screenshot(page, 'session-desktop-bare');
    expect(complaints).toEqual([]);
  });
});
