/** Builds the dashboard when its sources changed since the last build. */
import { createHash } from 'node:crypto';
import { glob, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Output } from './output.ts';
import type { Settings } from './settings.ts';

export async function ensureWeb(
  settings: Settings,
  options: { output: Output; signal: AbortSignal },
): Promise<void> {
  const outDir = path.join(settings.checkout, 'web', 'dist');
  const stampFile = path.join(outDir, '.inputs');
  const inputs = await hashInputs(settings.checkout);
  const built = await readFile(stampFile, 'utf8').catch(() => '');
  if (built === inputs) return;
  options.output.say('building the dashboard (its sources changed)');
  const { buildWeb } = await import('../web/build.ts');
  await buildWeb({ checkout: settings.checkout, outDir, log: () => {} });
  await writeFile(stampFile, inputs);
}

async function hashInputs(checkout: string): Promise<string> {
  const hash = createHash('sha256');
  const files: string[] = ['package-lock.json'];
  for await (const file of glob(['web/**/*.{ts,tsx,css,html,svg,png}', 'protocol/*.ts'], {
    cwd: checkout,
    exclude: (name) => name.includes('web/dist') || name.endsWith('.test.ts'),
  })) {
    files.push(file);
  }
  for (const file of files.sort())
    hash
      .update(file)
      .update('\0')
      .update(await readFile(path.join(checkout, file)));
  return hash.digest('hex');
}
