/** A real browser over the built page; screenshots for people to look at. */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, chromium, type Page } from 'playwright-core';
import { buildWeb } from '../build.ts';

const CHROMIUM = '/usr/bin/chromium';
const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url));
const SCREENSHOTS = join(CHECKOUT, '.artifacts', 'screenshots');

/** The Debian package that page tests need and this machine lacks; empty: there. */
export const missingForPages: readonly string[] = existsSync(CHROMIUM) ? [] : ['chromium'];

export interface Visit {
  readonly page: Page;
  /** What the browser complained about: script errors, refusals by the content security policy. */
  readonly complaints: readonly string[];
}

export interface VisitOptions {
  readonly width?: number;
  readonly height?: number;
  readonly dark?: boolean;
}

export interface PageTests extends AsyncDisposable {
  /** The built page. */
  readonly dist: string;
  /** A page in a fresh profile; the visit before is over then. */
  visit(options?: VisitOptions): Promise<Visit>;
}

/** A browser that can reach nothing but loopback. */
export function launchChromium(): Promise<Browser> {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-background-networking',
      '--disable-component-update',
      '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1',
    ],
  });
}

/** Builds the page into a directory of its own and starts a browser that can reach nothing but loopback. */
export async function startPageTests(): Promise<PageTests> {
  const dist = await mkdtemp(join(tmpdir(), 'polydev-web-'));
  let browser: Browser | undefined;
  try {
    await buildWeb({ checkout: CHECKOUT, outDir: dist, log: () => {} });
    browser = await launchChromium();
  } catch (thrown) {
    await rm(dist, { recursive: true, force: true });
    throw thrown;
  }
  const opened = browser;
  return {
    dist,
    async visit({ width = 1280, height = 860, dark = false } = {}) {
      for (const old of opened.contexts()) await old.close();
      const context = await opened.newContext({
        viewport: { width, height },
        // A phone's scroll bars lie over the page.
        isMobile: width < 620,
        hasTouch: width < 620,
        colorScheme: dark ? 'dark' : 'light',
        reducedMotion: 'reduce',
        permissions: ['clipboard-read', 'clipboard-write'],
      });
      const page = await context.newPage();
      page.setDefaultTimeout(10_000);
      const complaints: string[] = [];
      page.on('pageerror', (error) => complaints.push(String(error)));
      page.on('console', (message) => {
        if (message.type() === 'error') complaints.push(message.text());
      });
      return { page, complaints };
    },
    async [Symbol.asyncDispose]() {
      await opened.close();
      await rm(dist, { recursive: true, force: true });
    },
  };
}

/** Keeps a picture in .artifacts/screenshots/ (ignored by git), of the whole page or of what the window shows. */
export async function screenshot(page: Page, name: string, fullPage = true): Promise<void> {
  await mkdir(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage });
}
