import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { DIAGNOSES } from '../../protocol/diagnoses.ts';
import { missingForPages, type PageTests, screenshot, startPageTests } from '../testing/browser.ts';
import { type FakeApi, startFakeApi } from '../testing/fake-api.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

describe.skipIf(missingForPages.length > 0)(`pages (lacking: ${missingForPages.join(' ')})`, () => {
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

  it('says how to get a sign-in link to somebody who is signed out', async () => {
    api.signedIn = false;
    const { page } = await tests.visit();
    await page.goto(`${api.url}/machines`);
    await page.getByRole('heading', { name: 'You are not signed in' }).waitFor();
    expect(await page.getByText('./polydev up').isVisible()).toBe(true);
    expect(await page.getByText('./polydev sign-in').isVisible()).toBe(true);
    expect(await page.getByRole('alert').count()).toBe(0);
    await screenshot(page, 'signed-out');
    await page.goto(`${api.url}/?sign-in=refused`);
    await page.getByRole('alert').getByText('was used before or is too old').waitFor();
    await page.getByRole('link', { name: 'try again' }).click();
    await page.waitForURL(`${api.url}/`);
  });

  it('signs out, and shows nothing of the person afterwards', async () => {
    const { page } = await tests.visit();
    await page.goto(api.url);
    await page.getByText('Connected as ada@example.org').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'You are not signed in' }).waitFor();
    expect(await page.getByText('ada@example.org').count()).toBe(0);
  });

  it('shows accounts with subscription, holder and terminal, and disconnects after asking', async () => {
    const { page, complaints } = await tests.visit();
    await page.goto(api.url);
    const account = page.getByRole('listitem').filter({ hasText: 'Connected as ada@example.org' });
    await account.waitFor();
    expect(await account.textContent()).toContain('Plus subscription');
    expect(await account.getByRole('link', { name: 'Open terminal' }).isVisible()).toBe(true);
    expect(await account.getByRole('link', { name: 'its CLI machine' }).getAttribute('href')).toBe(
      `/machines/${api.data.credentials[0]?.holderMachineId}`,
    );
    await screenshot(page, 'home');

    await account.getByRole('button', { name: 'Disconnect ada@example.org' }).click();
    const dialog = page.getByRole('dialog', { name: 'Disconnect ada@example.org?' });
    await screenshot(page, 'home-disconnect');
    await page.keyboard.press('Escape');
    expect(api.data.credentials).toHaveLength(1);
    await account.getByRole('button', { name: 'Disconnect ada@example.org' }).click();
    await dialog.getByRole('button', { name: 'Disconnect', exact: true }).click();
    await page.getByRole('button', { name: 'Connect OpenAI Codex' }).waitFor();
    expect(api.data.credentials).toHaveLength(0);
    await screenshot(page, 'home-not-connected');
    expect(complaints).toEqual([]);
  });

  it('leads back to a login under way, also when a second one is refused', async () => {
    const { page } = await tests.visit();
    await page.goto(api.url);
    await page.getByRole('button', { name: 'Connect again: OpenAI Codex' }).click();
    await page.waitForURL('**/sessions/s_*');
    await page.goBack();
    const under = page.getByRole('region', { name: 'Logins under way' });
    await under.getByRole('link', { name: /Return to it/ }).waitFor();
    await page.getByRole('button', { name: 'Connect again: OpenAI Codex' }).click();
    const panel = page.getByRole('alert');
    await panel.getByText('login_in_progress').waitFor();
    await screenshot(page, 'home-in-progress');
    await panel.getByRole('link', { name: 'Return to the login under way' }).click();
    await page.getByRole('heading', { name: 'Connect OpenAI Codex' }).waitFor();
  });

  it('starts a login under the label of another account', async () => {
    const { page } = await tests.visit();
    await page.goto(api.url);
    await page.getByText('Connect another account').click();
    await page.getByLabel('Label for the account').fill('work');
    await page.getByLabel('Label for the account').press('Enter');
    await page.waitForURL('**/sessions/s_*');
    expect(api.newest().account).toBe('work');
  });

  it('keeps what it shows while nothing answers, says so, and recovers by itself', async () => {
    const { page } = await tests.visit();
    await page.goto(`${api.url}/machines`);
    await page.getByRole('link', { name: 'CLI machine', exact: true }).waitFor();
    api.down = true;
    await page.getByRole('heading', { name: 'This page is not up to date' }).waitFor();
    expect(await page.getByRole('link', { name: 'CLI machine', exact: true }).isVisible()).toBe(true);
    expect(await page.getByRole('alert').textContent()).toContain('HTTP 502');
    api.down = false;
    await page.getByRole('alert').waitFor({ state: 'detached' });
  });

  it('offers exactly the actions that the API names, and does them', async () => {
    const { page, complaints } = await tests.visit();
    await page.goto(`${api.url}/machines`);
    const row = page.getByRole('listitem').filter({ hasText: 'CLI machine' });
    await row.getByRole('link', { name: /Open terminal/ }).waitFor();
    expect(await row.getByRole('button', { name: /^Start/ }).count()).toBe(0);
    await screenshot(page, 'machines');
    await row.getByRole('button', { name: /^Stop/ }).click();
    await row.getByText('Stopped').waitFor();
    await row.getByRole('button', { name: /^Start/ }).click();
    await row.getByText('Ready').waitFor();
    await row.getByRole('button', { name: /^Remove/ }).click();
    const dialog = page.getByRole('dialog', { name: 'Remove this CLI machine?' });
    await dialog.getByRole('button', { name: 'Remove', exact: true }).click();
    await row.waitFor({ state: 'detached' });
    expect(complaints).toEqual([]);
  });

  it('shows a failed machine: the step where its boot stopped, its console and its evidence', async () => {
    const { page, complaints } = await tests.visit();
    await page.goto(`${api.url}/machines/${api.data.machines[1]?.id}`);
    const boot = page.getByRole('list', { name: 'Boot checklist' });
    await boot.waitFor();
    const stopped = boot.getByRole('listitem').filter({ hasText: 'stopped here' });
    expect(await stopped.textContent()).toContain('Desktop did not come up');
    expect(await boot.getByRole('listitem').filter({ hasText: 'Agent answers' }).textContent()).toContain(
      '0.18 s',
    );
    await page.getByRole('region', { name: 'Console' }).getByText('Xvnc exited with code 1').waitFor();
    const diagnosis = page.getByRole('region', { name: 'Diagnosis' });
    await diagnosis.getByText('xvnc_failed').waitFor();
    expect(await diagnosis.textContent()).toContain('The X server does not start.');
    expect(await diagnosis.locator('pre').first().textContent()).toContain(
      'console.log: Xvnc: Fatal server error',
    );
    await diagnosis.getByText('What was reported first').click();
    await diagnosis.getByText('[    0.230] polydev-agent: starting Xvnc').waitFor();
    // The same is not said twice.
    expect(await page.getByRole('alert').count()).toBe(0);
    const evidence = page.getByRole('region', { name: 'Evidence' });
    await evidence.getByRole('button', { name: 'Show agent.log' }).click();
    await evidence.getByText('agent 0.1.0 listening').waitFor();
    await screenshot(page, 'machine-failed');
    expect(complaints).toEqual([]);
  });

  it('lists credentials without anything secret, and deletes after asking', async () => {
    const { page } = await tests.visit();
    await page.goto(`${api.url}/credentials`);
    await page.getByRole('heading', { name: 'OpenAI Codex' }).waitFor();
    await screenshot(page, 'credentials');
    await page.getByRole('button', { name: 'Delete the credential of ada@example.org' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete it' }).click();
    await page.getByText('Nothing is stored.').waitFor();
    expect(api.data.credentials).toHaveLength(0);
  });

  it('shows why a host takes no machines', async () => {
    const { page, complaints } = await tests.visit();
    await page.goto(`${api.url}/hosts`);
    const host = page.getByRole('listitem').filter({ hasText: 'host-2' });
    await host.getByText('image_missing').waitFor();
    expect(await host.textContent()).toContain('Takes no machines');
    await screenshot(page, 'hosts');
    expect(complaints).toEqual([]);
  });

  it('shows what the doctor says: what does not work first, with what mends it', async () => {
    const { page, complaints } = await tests.visit();
    await page.goto(`${api.url}/hosts`);
    await page.getByRole('link', { name: 'Doctor' }).click();
    const bad = page.getByRole('region', { name: 'Host host-2' });
    await bad.getByText('One check fails').waitFor();
    const rows = await bad.getByRole('listitem').allTextContents();
    expect(rows).toHaveLength(2);
    expect(rows[0]).toContain('there is none in');
    expect(rows[0]).toContain('./polydev image build');
    expect(rows[1]).toContain('forbidden: /dev/kvm');
    await bad.getByText('What works (4)').click();
    await bad.getByText('only virtual machines need it').waitFor();
    const good = page.getByRole('region', { name: 'Host host-1' });
    await good.getByText('Machines can start').waitFor();
    await good.getByText('runs as root').waitFor();
    await good.getByRole('button', { name: 'Examine again' }).click();
    await good.getByText('Machines can start').waitFor();
    await screenshot(page, 'doctor');
    expect(complaints).toEqual([]);
  });

  it('shows a ready machine that does not work, and that it is well again', async () => {
    const { page, complaints } = await tests.visit();
    const machine = api.data.machines[0];
    if (machine === undefined) throw new Error('no machine');
    const at = new Date().toISOString();
    const { fault, summary, remedy } = DIAGNOSES.dns_dead;
    const lines = [{ source: 'check', text: '10.80.0.1 port 53 said: ETIMEOUT' }];
    const diagnosis = {
      name: 'dns_dead',
      fault,
      summary,
      remedy,
      lines,
      checkpoint: 'provider',
      at,
    } as const;
    machine.health = { state: 'degraded', since: at, diagnosis: { ...diagnosis } };
    await page.goto(`${api.url}/machines`);
    await page.getByText('Ready, but not well').waitFor();
    await page.getByText(summary).waitFor();
    await page.getByRole('main').getByRole('link', { name: 'CLI machine', exact: true }).click();
    const panel = page.getByRole('region', { name: 'Diagnosis' });
    await panel.getByText('dns_dead').waitFor();
    expect(await panel.locator('pre').first().textContent()).toContain('ETIMEOUT');
    machine.health = { state: 'healthy', since: new Date().toISOString(), diagnosis: null };
    await page.getByText('Ready, but not well').waitFor({ state: 'detached' });
    expect(complaints).toEqual([]);
  });

  it('shows failed machines that are kept, until when, and switches the keeping off', async () => {
    const { page, complaints } = await tests.visit();
    await page.goto(`${api.url}/hosts`);
    const panel = page.getByRole('region', { name: 'Clean-up' });
    await panel.getByText('kept until').waitFor();
    await panel.getByRole('button', { name: 'Remove failed machines' }).click();
    await panel.getByRole('button', { name: 'Keep failed machines' }).waitFor();
    expect(api.data.settings.keepFailed).toBe(false);
    await panel.getByRole('button', { name: /^Remove Browser machine/ }).click();
    const dialog = page.getByRole('dialog', { name: 'Remove this Browser machine?' });
    await dialog.getByRole('button', { name: 'Remove', exact: true }).click();
    await panel.getByText('Nothing is kept.').waitFor();
    expect(complaints).toEqual([]);
  });

  it('fits a phone without sideways scrolling, in light and dark, on every page', async () => {
    for (const dark of [false, true]) {
      const { page } = await tests.visit({ width: 390, height: 844, dark });
      const paths = [
        '',
        'machines',
        `machines/${api.data.machines[1]?.id}`,
        'credentials',
        'hosts',
        'doctor',
      ];
      for (const path of [...paths, `sessions/${api.data.sessions[0]?.id}`]) {
        await page.goto(`${api.url}/${path}`);
        await page.getByRole('heading', { level: 1 }).waitFor();
        await page.locator('.loading').first().waitFor({ state: 'detached' });
        expect(await page.evaluate(() => document.documentElement.scrollWidth), path).toBe(390);
        const name = path.split('/')[0] === '' ? 'home' : path.replace(/\/.*/, '-one');
        await screenshot(page, `${name}-390-${dark ? 'dark' : 'light'}`);
      }
    }
  });

  it('works by keyboard from the first key', async () => {
    const { page } = await tests.visit();
    await page.goto(api.url);
    await page.getByText('Connected as ada@example.org').waitFor();
    await page.keyboard.press('Tab');
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe('Skip to the content');
    await page.keyboard.press('Enter');
    await page.keyboard.press('Tab');
    expect(await page.evaluate(() => document.activeElement?.getAttribute('aria-label'))).toBe(
      'Connect again: OpenAI Codex',
    );
  });
});
