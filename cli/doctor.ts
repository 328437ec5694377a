/** `./polydev doctor`: what this host lacks, what was seen, and the command that mends it. */
import path from 'node:path';
import { type Check, fail, ok } from '../host/doctor/check.ts';
import { examineHost } from '../host/doctor/host.ts';
import { readLock } from './lock.ts';
import type { Output } from './output.ts';
import { checkPort } from './preflight.ts';
import { type Settings, settingsPaths } from './settings.ts';

const DEADLINE_MS = 120_000;

/** Returns the exit code: 1 when a machine could not start here. */
export async function doctor(
  settings: Settings,
  options: { json: boolean },
  output: Output,
  signal: AbortSignal,
): Promise<number> {
  const paths = settingsPaths(settings);
  const running = (await readLock(settings))?.url !== undefined;
  const checks = await examineHost(
    {
      checkout: settings.checkout,
      imageCacheDir: paths.images,
      dataDir: paths.hostData,
      instance: settings.instance,
      runDir: path.dirname(paths.hostSocket),
      sharedDir: '/run/polydev-shared',
      running,
    },
    AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]),
  );
  checks.push(running ? ok('port', 'not tried: this instance runs') : await port());
  const failed = checks.filter(({ result }) => result === 'fail').length;
  if (options.json) output.result(JSON.stringify({ ok: failed === 0, checks }));
  else output.result(describe(checks));
  return failed === 0 ? 0 : 1;
}

async function port(): Promise<Check> {
  try {
    await checkPort({ port: 4000, bind: '127.0.0.1' });
    return ok('port', '4000 of 127.0.0.1 is free');
  } catch (error) {
    return fail('port', error instanceof Error ? error.message : String(error), './polydev up --port 4001');
  }
}

function describe(checks: readonly Check[]): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  const lines = checks.flatMap(({ name, result, fact, remedy }) => [
    `${result.padEnd(4)}  ${name.padEnd(width)}  ${fact}`,
    ...(remedy === null ? [] : [`${' '.repeat(width + 8)}mend: ${remedy}`]),
  ]);
  const count = (wanted: Check['result']): number => checks.filter(({ result }) => result === wanted).length;
  return [...lines, `doctor: ${count('ok')} ok, ${count('warn')} warnings, ${count('fail')} failed`].join(
    '\n',
  );
}
