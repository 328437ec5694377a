/** Trials that passed, remembered for the kernel they ran on: one that takes seconds is not repeated at every start. */
import { release } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { DriverName } from '../../protocol/host.ts';
import { parseJson, readIfThere, writeAtomic } from '../system/files.ts';
import type { DriverReport } from './driver.ts';

const Passed = z.object({ driver: DriverName, kernel: z.string(), guest: z.string(), at: z.iso.datetime() });

const fileOf = (dataDir: string): string => join(dataDir, 'driver-trial.json');

/** When `driver` passed with this guest on the running kernel; undefined when it did not, or that is not known. */
export async function passedBefore(
  dataDir: string,
  driver: DriverName,
  guest: string,
): Promise<string | undefined> {
  const text = await readIfThere(fileOf(dataDir));
  const known = text === undefined ? undefined : Passed.safeParse(parseJson(text)).data;
  const same = known?.driver === driver && known.kernel === release() && known.guest === guest;
  return same ? known.at : undefined;
}

/** Remembers a trial that passed; one that failed is forgotten, so that it is tried again. */
export async function rememberTrial(dataDir: string, report: DriverReport, guest: string): Promise<void> {
  const at = new Date().toISOString();
  const passed: z.infer<typeof Passed> = { driver: report.driver, kernel: release(), guest, at };
  await writeAtomic(fileOf(dataDir), JSON.stringify(report.ok ? passed : {}));
}
