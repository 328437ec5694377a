/** Trials that were made, remembered for the computer, kernel and guest they ran on: one that takes seconds is not repeated at every start. */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { parseJson, readIfThere, writeAtomic } from '../system/files.ts';
import type { DriverReport } from './driver.ts';

const Trial = z.object({
  host: z.string(),
  kernel: z.string(),
  guest: z.string(),
  at: z.iso.datetime(),
  problems: z.array(z.string()),
});
const Trials = z.record(z.string(), Trial);
export type Trial = z.infer<typeof Trial>;

const fileOf = (dataDir: string): string => join(dataDir, 'driver-trials.json');

/** This computer: its data could be moved to another. */
function thisHost(): string {
  try {
    return readFileSync('/etc/machine-id', 'utf8').trim();
  } catch {
    return 'unknown';
  }
}

async function read(dataDir: string): Promise<z.infer<typeof Trials>> {
  const text = await readIfThere(fileOf(dataDir));
  return (text === undefined ? undefined : Trials.safeParse(parseJson(text)).data) ?? {};
}

/** What is known of a trial of `name` with this guest on the running kernel; undefined: nothing. */
export async function knownTrial(dataDir: string, name: string, guest: string): Promise<Trial | undefined> {
  const known = (await read(dataDir))[name];
  const same = known?.host === thisHost() && known.kernel === release() && known.guest === guest;
  return same ? known : undefined;
}

/** A trial that failed in less than this is cheap to make again, and what it lacked may be there by then. */
const CHEAP_MS = 1000;

/** Remembers a trial that passed or took long to fail; forgets it otherwise. */
export async function rememberTrial(
  dataDir: string,
  name: string,
  report: DriverReport,
  guest: string,
): Promise<void> {
  const trials = await read(dataDir);
  const { problems } = report;
  const trial = { host: thisHost(), kernel: release(), guest, at: new Date().toISOString(), problems };
  const { [name]: _old, ...others } = trials;
  const kept = report.ok || report.ms >= CHEAP_MS ? { ...others, [name]: trial } : others;
  await writeAtomic(fileOf(dataDir), JSON.stringify(kept));
}
