/**
 * The main job as a person sees it: a real Chromium on the dashboard of a whole installation, a real browser machine on
 * the live desktop, the genuine Codex. Only the provider is the test one. The tests follow each other like a visit does.
 */
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { Machine, Session } from '../../protocol/api.ts';
import { isFinal } from '../../protocol/lifecycles.ts';
import { CHECKPOINTS } from '../../protocol/machine.ts';
import { launchChromium, missingForPages, screenshot } from '../../web/testing/browser.ts';
import { TEST_PERSON } from '../idp/people.ts';
import { DESKTOP, seeAny, signInThroughPage } from './dashboard-person.ts';
import { type Installation, install } from './installation.ts';

/** Longest wait for anything on the page: a machine boots meanwhile, and the computer may be busy. */
const PATIENCE_MS = 90_000;

const lacking = [...missingForPages, ...(process.getuid?.() === 0 ? [] : ['root'])];

describe.skipIf(lacking.length > 0)(`the dashboard (lacking: ${lacking.join(' ')})`, () => {
  let polydev: Installation;
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  let complaints: string[] = [];

  beforeAll(async () => {
    polydev = await install();
    browser = await launchChromium();
    context = await newContext();
    page = await newPage();
  });
  afterAll(async () => {
    try {
      await browser?.close();
    } finally {
      await polydev?.[Symbol.asyncDispose]();
    }
  });
  // Script errors and refusals by the content security policy, in every test.
  afterEach(() => {
    const said = complaints;
    complaints = [];
    expect(said).toEqual([]);
  });

  const newContext = () =>
    browser.newContext({ viewport: { width: 1440, height: 960 }, reducedMotion: 'reduce' });

  async function newPage(within: BrowserContext = context): Promise<Page> {
    const opened = await within.newPage();
    opened.setDefaultTimeout(PATIENCE_MS);
    opened.on('pageerror', (error) => complaints.push(String(error)));
    opened.on('console', (message) => {
      if (message.type() === 'error') complaints.push(`${message.text()} (${message.location().url})`);
    });
    return opened;
  }

  const sessionId = () => new URL(page.url()).pathname.split('/').at(-1) ?? '';
  const sessionNow = (id: string) => polydev.api('GET', `/api/auth/session/${id}`, Session);
  const step = (title: string) =>
    page
      .getByRole('list', { name: 'Steps of this login' })
      .getByRole('listitem')
      .filter({ hasText: title })
      .first();

  async function connect(): Promise<string> {
    await page.goto(polydev.url);
    await page.getByRole('button', { name: 'Connect with the test identity provider' }).click();
    await page.waitForURL('**/sessions/s_*');
    return sessionId();
  }

  /** The account of a session whose machine must be gone, as the API knows it. */
  async function expectGone(id: string): Promise<void> {
    const { browserMachineId } = await sessionNow(id);
    const state = async () => (await polydev.api('GET', `/api/machines/${browserMachineId}`, Machine)).state;
    await expect.poll(state, { timeout: PATIENCE_MS, interval: 200 }).toBe('destroyed');
  }

  it('opens by the one-time link, leaves no token in the address, and shows the providers', async () => {
    await page.goto(polydev.signInUrl);
    await page.getByRole('heading', { name: 'OpenAI Codex' }).waitFor();
    expect(page.url()).toBe(`${polydev.url}/`);
    expect(await page.getByRole('button', { name: 'Connect OpenAI Codex' }).isVisible()).toBe(true);
    expect(await page.getByText('Not connected.').isVisible()).toBe(true);
    await screenshot(page, 'e2e-providers');
  });

  it('connects Codex through the live desktop, step by step, up to the verified account', async () => {
    const id = await connect();
    await step('Preparing the machine').waitFor();
    await page.locator(DESKTOP).waitFor();
    await step('Waiting for your sign-in').waitFor();
    expect(await page.getByText('The address bar must say').textContent()).toContain('auth.openai.com');
    await signInThroughPage(page, {
      ...TEST_PERSON,
      consent: 'allow',
      onPage: (shown) => screenshot(page, `e2e-login-${shown}`),
    });
    await page.getByRole('heading', { name: `Connected as ${TEST_PERSON.email}` }).waitFor();
    expect(await page.getByText('Logged in using ChatGPT').isVisible()).toBe(true);
    for (const title of [
      'Browser machine ready',
      'You signed in',
      'Encrypted and stored',
      'Installed for the CLI',
    ]) {
      expect(await step(title).locator('.step-time').first().textContent(), title).toMatch(/\d/);
    }
    expect(await page.locator(DESKTOP).count()).toBe(0);
    await screenshot(page, 'e2e-connected');
    await expectGone(id);
  });

  it('opens a terminal in which the CLI is logged in', async () => {
    await page.getByRole('link', { name: 'Open terminal' }).click();
    await page.waitForURL('**/terminal');
    await page.getByRole('status').getByText('Connected', { exact: true }).waitFor();
    const screen = page.locator('.xterm-rows');
    const text = async () => (await screen.textContent()) ?? '';
    await expect.poll(text, { timeout: PATIENCE_MS, interval: 100 }).toMatch(/[$#]/);
    await page.keyboard.type('codex login status', { delay: 10 });
    await page.keyboard.press('Enter');
    await expect.poll(text, { timeout: PATIENCE_MS, interval: 100 }).toContain('Logged in using ChatGPT');
    await screenshot(page, 'e2e-terminal');
  });

  it('shows how each machine booted, with times, and the console of the one that is gone', async () => {
    await page.getByRole('link', { name: 'Machines' }).click();
    const gone = page.getByRole('region', { name: 'Gone, with their evidence' });
    await gone.getByRole('link', { name: 'Browser machine' }).click();
    const boot = page.getByRole('list', { name: 'Boot checklist' });
    const points = [
      'Sandbox started',
      'Kernel is up',
      'Agent answers',
      'Desktop is up',
      'Browser is up',
      'CLI is ready',
    ];
    for (const point of points) {
      const row = boot.getByRole('listitem').filter({ hasText: point });
      await row.waitFor();
      expect(await row.locator('time').textContent(), point).toMatch(/reached after .*\d/);
    }
    // In the order in which they were reached: each took some time since the one before.
    const times = await boot
      .locator('time')
      .evaluateAll((all) => all.map((one) => one.getAttribute('datetime')));
    expect(times).toEqual(times.toSorted());
    expect(times).toHaveLength(CHECKPOINTS.length);
    const console = page.getByRole('region', { name: 'Console' }).locator('pre');
    await expect.poll(() => console.textContent(), { timeout: PATIENCE_MS }).toContain('agent');
    const evidence = page.getByRole('region', { name: 'Evidence' });
    await evidence.getByRole('button', { name: 'Show machine.json' }).click();
    await evidence.locator('pre').getByText('namespace').waitFor();
    await screenshot(page, 'e2e-machine-gone');
    await page.getByRole('link', { name: 'Machines' }).click();
    await page.getByRole('main').getByRole('link', { name: 'CLI machine', exact: true }).click();
    await boot.getByRole('listitem').filter({ hasText: 'CLI is ready' }).locator('time').waitFor();
    await screenshot(page, 'e2e-machine-cli');
  });

  it('names denied consent and says what to do', async () => {
    const id = await connect();
    await signInThroughPage(page, { ...TEST_PERSON, consent: 'deny' });
    const panel = page.getByRole('alert');
    await panel.getByRole('heading', { name: 'The login failed' }).waitFor();
    expect(await panel.textContent()).toContain('login_denied');
    expect(await panel.textContent()).toContain(
      'Consent was denied on the provider page; start again and allow it.',
    );
    expect(await panel.getByRole('button', { name: 'Start again' }).isVisible()).toBe(true);
    await screenshot(page, 'e2e-denied');
    await expectGone(id);
  });

  it('goes on when its tab is closed, is found again from the home page, and is cancelled after asking', async () => {
    const id = await connect();
    await seeAny(page, ['sign-in'], PATIENCE_MS);
    await page.close();
    page = await newPage();
    await page.goto(polydev.url);
    expect((await sessionNow(id)).state).toBe('waiting_for_person');
    await page.getByRole('link', { name: 'Return to it' }).waitFor();
    await screenshot(page, 'e2e-return');
    await page.getByRole('link', { name: 'Return to it' }).click();
    expect(sessionId()).toBe(id);
    await seeAny(page, ['sign-in']);
    await page.getByRole('button', { name: 'Cancel', exact: true }).click();
    await page.getByRole('button', { name: 'Cancel the login' }).click();
    await page.getByRole('heading', { name: 'The login was cancelled' }).waitFor();
    expect(await page.getByRole('alert').count()).toBe(0);
    await page.getByText('Nothing was stored.').waitFor();
    await screenshot(page, 'e2e-cancelled');
    await expectGone(id);
  });

  it('says so when nobody came in time, also to somebody who comes later', async () => {
    const body = { provider: 'codex', realm: 'test', expiresInSeconds: 15 };
    const { id } = await polydev.api('POST', '/api/auth/start', Session, body);
    await page.goto(polydev.url);
    await page.getByRole('link', { name: 'Return to it' }).click();
    await page.getByRole('timer').waitFor();
    await page.close();
    const ended = await polydev.sessionUntil(id, (session) => isFinal(session.state), PATIENCE_MS / 1000);
    expect(ended.state).toBe('expired');
    page = await newPage();
    await page.goto(`${polydev.url}/sessions/${id}`);
    await page.getByRole('heading', { name: 'Nobody signed in in time' }).waitFor();
    expect(await page.getByRole('alert').textContent()).toContain('login_expired');
    await screenshot(page, 'e2e-expired');
    await expectGone(id);
  });

  it('explains a sign-in link that was used before, and signs nobody in by it', async () => {
    const stranger = await newContext();
    const visit = await newPage(stranger);
    await visit.goto(polydev.signInUrl);
    await visit.getByRole('alert').getByText('was used before or is too old').waitFor();
    await visit.getByRole('heading', { name: 'You are not signed in' }).waitFor();
    expect(visit.url()).not.toContain('token');
    expect(await stranger.cookies()).toEqual([]);
    await screenshot(visit, 'e2e-link-used');
    await stranger.close();
    // Somebody who is signed in already only wants the dashboard.
    await page.goto(polydev.signInUrl);
    await page.getByRole('heading', { name: 'Accounts' }).waitFor();
    expect(await page.getByRole('alert').count()).toBe(0);
    complaints = complaints.filter((line) => !isRefusedMe(line));
  });

  it('signs out, and the session is worth nothing afterwards', async () => {
    await page.goto(polydev.url);
    await page.getByText(`Connected as ${TEST_PERSON.email}`).waitFor();
    const [cookie] = await context.cookies();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'You are not signed in' }).waitFor();
    expect(await page.getByText(TEST_PERSON.email).count()).toBe(0);
    const old = await fetch(`${polydev.url}/api/me`, {
      headers: { cookie: `${cookie?.name}=${cookie?.value}` },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    expect(z.object({ error: z.object({ code: z.string() }) }).parse(await old.json()).error.code).toBe(
      'unauthenticated',
    );
    await screenshot(page, 'e2e-signed-out');
    complaints = complaints.filter((line) => !isRefusedMe(line));
  });

  /** Chromium itself notes every refused call; a visitor who is signed out makes exactly this one. */
  const isRefusedMe = (line: string) => line.includes('401') && line.includes(`${polydev.url}/api/me`);
});
