/**
 * What an operator sees of a machine that failed: a fault of the corpus in a real machine of a real host service, followed
 * by the controller's real workflows, shown in the real dashboard by a real Chromium. The pictures of the docs are from
 * here (.artifacts/screenshots).
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { pino } from 'pino';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createAccess, createAuditLog } from '../../controller/api/access.ts';
import { buildApi } from '../../controller/api/app.ts';
import { OPERATOR } from '../../controller/api/caller.ts';
import { signInPath } from '../../controller/api/routes/access.ts';
import { createHostClient } from '../../controller/hosts/host-client.ts';
import { openDatabase } from '../../controller/store/database.ts';
import { requestMachine } from '../../controller/store/machines.ts';
import { createSession, getSession } from '../../controller/store/sessions.ts';
import type { Database } from '../../controller/store/tables.ts';
import { readMachineEvents } from '../../controller/store/timeline.ts';
import { masterKeyFromValue } from '../../controller/vault/master-key.ts';
import { createVault } from '../../controller/vault/vault.ts';
import { createServices } from '../../controller/workflows/services.ts';
import { startHostService } from '../../host/service.ts';
import { CHECKOUT, lacking as lackingMachines, newInstance } from '../../host/testing/fixture.ts';
import { newMachineId, newSessionId, UserId } from '../../protocol/ids.ts';
import { providers } from '../../providers/index.ts';
import { buildWeb } from '../../web/build.ts';
import { launchChromium, missingForPages, screenshot } from '../../web/testing/browser.ts';
import { Disk } from '../faults/disk.ts';
import { xvncFails } from '../faults/xvnc-fails/fault.ts';
import { startTestPostgres } from '../postgres.ts';

const PATIENCE_MS = 90_000;
const lacking = [...missingForPages, ...[lackingMachines({ image: true }) ?? []].flat()];

describe.skipIf(lacking.length > 0)(`a failed machine (lacking: ${lacking.join(' ')})`, () => {
  const undo = new AsyncDisposableStack();
  const machineId = newMachineId();
  const sessionId = newSessionId();
  let browser: Browser;
  let db: Database;
  let url: string;
  let signIn: string;
  let metrics: () => Promise<string>;
  let complaints: string[] = [];

  beforeAll(async () => {
    const postgres = undo.use(await startTestPostgres());
    const { config, log, ...folders } = newInstance();
    undo.defer(() => folders[Symbol.dispose]());
    const service = await startHostService(config, log);
    undo.defer(() => service.stop());
    const databaseUrl = await postgres.createDatabase();
    db = undo.use(await openDatabase({ url: databaseUrl })).db;
    // The login finds its machine with a broken X server on its disk: a queued one is taken up when the services start.
    const userId = UserId.parse('ada');
    await createSession(db, {
      id: sessionId,
      userId,
      provider: 'codex',
      account: 'default',
      realm: 'test',
      expiresAt: new Date(Date.now() + 600_000),
    });
    await requestMachine(db, {
      id: machineId,
      kind: 'browser',
      realm: 'test',
      userId,
      sessionId,
      hostId: 'local',
      limits: { cpus: 2, memoryMiB: 1024, pids: 512 },
      display: { width: 1280, height: 800 },
    });
    const disk = new Disk(path.join(config.dataDir, 'machines', machineId));
    await xvncFails.before?.({ id: machineId, config, disk, defer: (work) => undo.defer(work) });
    const vault = await createVault(db, masterKeyFromValue(randomBytes(32).toString('hex')));
    const services = undo.use(
      await createServices({
        db,
        databaseUrl,
        vault,
        hostClient: createHostClient(config.socketPath),
        log,
        settings: { operator: { keepFailed: true } },
      }),
    );
    metrics = () => services.meters.registry.metrics();
    const webDist = await mkdtemp(path.join(os.tmpdir(), 'polydev-web-'));
    undo.defer(() => rm(webDist, { recursive: true, force: true }));
    await buildWeb({ checkout: CHECKOUT, outDir: webDist, log: () => undefined });
    const access = createAccess(db);
    const app = await buildApi({
      services,
      access,
      audit: createAuditLog(db),
      providers: Object.values(providers),
      ticketKey: vault.deriveKey('tickets'),
      readiness: [],
      webDist,
      allowTestRealm: true,
      logger: pino({ level: 'silent' }),
    });
    undo.defer(() => app.close());
    url = await app.listen({ host: '127.0.0.1', port: 0 });
    signIn = url + signInPath((await access.createSignInLink(OPERATOR, 'operator')).token);
    browser = await launchChromium();
    undo.defer(() => browser.close());
  });
  afterAll(() => undo.disposeAsync());

  let page: Page;
  /** Opens the dashboard in one look: wide or narrow, light or dark. Signs in once. */
  async function look(width: number, dark: boolean): Promise<Page> {
    const [context = await browser.newContext({ reducedMotion: 'reduce' })] = browser.contexts();
    const [opened] = context.pages();
    page = opened ?? (await context.newPage());
    if (opened === undefined) {
      page.setDefaultTimeout(PATIENCE_MS);
      page.on('pageerror', (error) => complaints.push(String(error)));
      page.on('console', (message) => {
        if (message.type() === 'error') complaints.push(message.text());
      });
      await page.goto(signIn);
    }
    await page.setViewportSize({ width, height: width < 600 ? 844 : 900 });
    await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' });
    return page;
  }

  const LOOKS = [
    [1280, false, 'light'],
    [1280, true, 'dark'],
    [390, false, 'light-narrow'],
    [390, true, 'dark-narrow'],
  ] as const;

  it('fails while it boots, and is kept', async () => {
    const state = async () => (await getSession(db, sessionId))?.state;
    await expect.poll(state, { timeout: PATIENCE_MS, interval: 200 }).toBe('failed');
  });

  it('shows the checklist stopped at its step, the name, the proving lines and the remedy', async () => {
    complaints = [];
    for (const [width, dark, name] of LOOKS) {
      await look(width, dark);
      await page.goto(`${url}/machines/${machineId}`);
      const diagnosis = page.getByRole('region', { name: 'Diagnosis' });
      await diagnosis.getByText('xvnc_failed').waitFor();
      const said = (await diagnosis.textContent()) ?? '';
      expect(said).toContain('The X server does not start.');
      expect(said).toContain("Read the X server's lines in the proof and in the agent log.");
      expect(await diagnosis.locator('pre').first().textContent()).toContain('no screens found');
      const boot = page.getByRole('list', { name: 'Boot checklist' });
      const stopped = boot.getByRole('listitem').filter({ hasText: 'stopped here' });
      expect(await stopped.textContent()).toContain('Desktop did not come up');
      await boot.getByRole('listitem').filter({ hasText: 'Agent answers' }).locator('time').waitFor();
      await page.getByRole('region', { name: 'Console' }).getByText('no screens found').first().waitFor();
      await page.getByRole('region', { name: 'Evidence' }).getByText('diagnosis.json').waitFor();
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(width);
      await screenshot(page, `e2e-failed-machine-${name}`);
      // For the docs: as much as a window shows.
      await screenshot(page, `machine-failed-${name}`, false);
    }
    expect(complaints).toEqual([]);
  });

  it('counts it by its name, and says so in the timeline', async () => {
    const events = (await readMachineEvents(db, machineId)).filter(({ kind }) => kind === 'diagnosis');
    expect(events.map(({ name, detail }) => [name, detail])).toEqual([['xvnc_failed', 'desktop_failed']]);
    const text = await metrics();
    expect(text).toContain(
      'polydev_machine_failures_total{diagnosis="xvnc_failed",driver="namespace",kind="browser"} 1',
    );
    expect(text).toContain(
      'polydev_machine_checkpoint_seconds_count{driver="namespace",kind="browser",checkpoint="agent"} 1',
    );
  });

  it('shows what the doctor found on this very host', async () => {
    complaints = [];
    await look(1280, false);
    await page.goto(`${url}/doctor`);
    const host = page.getByRole('region', { name: 'Host local' });
    const works = host.getByText(/^What works \(\d+\)$/);
    await works.waitFor();
    if ((await host.getByText('runs as root').isVisible()) === false) await works.click();
    await host.getByText('runs as root').waitFor();
    for (const [width, dark, name] of LOOKS) {
      await look(width, dark);
      expect(await host.getByRole('status').textContent()).toMatch(/Machines can start|warning|check/);
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(width);
      await screenshot(page, `e2e-doctor-${name}`);
      await screenshot(page, `doctor-${name}`, false);
    }
    expect(complaints).toEqual([]);
  });
});
