/** Builds the dashboard's files. `./polydev up` calls it when the sources are newer than the last build. */
import { join } from 'node:path';
import { build, createLogger } from 'vite';
import config from './vite.config.ts';

export interface BuildWebOptions {
  /** Root of the checkout (the folder that holds `web/`). */
  readonly checkout: string;
  /** Where the files go; emptied first. */
  readonly outDir: string;
  /** Gets one line per message worth showing. */
  readonly log: (line: string) => void;
}

/**
 * Bundles `web/` into `outDir`: `index.html` plus `assets/` with content-hashed names (cacheable for ever).
 * Throws Vite's own error, which names file and line, when a source does not compile.
 */
export async function buildWeb({ checkout, outDir, log }: BuildWebOptions): Promise<void> {
  const quiet = createLogger('silent');
  await build({
    ...config,
    configFile: false,
    root: join(checkout, 'web'),
    logLevel: 'warn',
    customLogger: {
      ...quiet,
      warn: (message) => log(`warning: ${message}`),
      warnOnce: (message) => log(`warning: ${message}`),
      error: (message) => log(message),
    },
    build: { ...config.build, outDir },
  });
  log(`dashboard built in ${outDir}`);
}
