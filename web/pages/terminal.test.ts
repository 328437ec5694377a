import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { missingForPages, type PageTests, screenshot, startPageTests } from '../testing/browser.ts';
import { type FakeApi, startFakeApi } from '../testing/fake-api.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const shown = async (page: Page) => (await page.locator('.xterm-rows > div').allTextContents()).join('\n');

describe.skipIf(missingForPages.length > 0)(`terminal page (lacking: ${missingForPages.join(' ')})`, () => {
  let tests: PageTests;
  let api: FakeApi;
  let page: Page;
  let complaints: readonly string[];
  beforeAll(async () => {
    tests = await startPageTests();
  });
  afterAll(() => tests[Symbol.asyncDispose]());
  beforeEach(async () => {
    api = await startFakeApi({ dist: tests.dist });
    ({ page, complaints } = await tests.visit());
    await page.goto(`${api.url}/machines/${api.data.machines[0]?.id}/terminal`);
    await page.getByText('Connected', { exact: true }).waitFor();
  });
  afterEach(() => api[Symbol.asyncDispose]());

  const run = async (command: string) => {
    await page.keyboard.type(command);
    await page.keyboard.press('Enter');
  };
  const expectShown = () => expect.poll(() => shown(page), { timeout: 10_000 });

  it('runs commands at once, with text beyond ASCII intact', async () => {
    await run("printf 'r\\303\\251sultat %s\\n' ✓");
    await expectShown().toContain('résultat ✓');
    await screenshot(page, 'terminal');
    expect(complaints).toEqual([]);
  });

  it('tells the machine its size, and again when the window changes', async () => {
    const size = async (label: string) => {
      await run(`echo ${label} $(stty size)`);
      await expectShown().toMatch(new RegExp(`^${label} \\d+ \\d+`, 'm'));
      const [, rows, columns] = new RegExp(`^${label} (\\d+) (\\d+)`, 'm').exec(await shown(page)) ?? [];
      return { rows: Number(rows), columns: Number(columns) };
    };
    const before = await size('before');
    await page.setViewportSize({ width: 800, height: 600 });
    await expect.poll(() => page.locator('.xterm-rows > div').count()).toBeLessThan(before.rows);
    const after = await size('after');
    expect(after.rows).toBe(await page.locator('.xterm-rows > div').count());
    expect(after.columns).toBeLessThan(before.columns);
  });

  it('opens again by itself after the connection broke', async () => {
    await run('echo first');
    await expectShown().toContain('first');
    api.breakTerminals();
    await page.getByText('Connection lost, trying again').waitFor();
    await page.getByText('Connected', { exact: true }).waitFor();
    await run('echo again $((40 + 2))');
    await expectShown().toContain('again 42');
  });

  it('stays ended when the shell has ended, until a new one is asked for', async () => {
    await run('exit');
    await page.getByRole('button', { name: 'Open a new one' }).click();
    await page.getByText('Connected', { exact: true }).waitFor();
    await run('echo new $((1 + 1))');
    await expectShown().toContain('new 2');
  });

  it('can be left by keyboard', async () => {
    await page.keyboard.press('Shift+Escape');
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('terminal-back');
  });
});
