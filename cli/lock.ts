/** One running instance per data directory: a file with the pid and its start time, so that a reused pid is not believed. */
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { PolydevError } from '../protocol/errors.ts';
import { type Settings, settingsPaths } from './settings.ts';

const Lock = z.object({
  pid: z.number().int(),
  startTicks: z.string(),
  url: z.string().optional(),
  publicUrl: z.string().optional(),
});
export type Lock = z.infer<typeof Lock>;

/** Field 22 of /proc/<pid>/stat: the start time in clock ticks since boot; undefined when there is no such process. */
export async function startTicks(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
}

/** The lock of a process that still runs, or undefined. */
export async function readLock(settings: Settings): Promise<Lock | undefined> {
  const text = await readFile(settingsPaths(settings).lock, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const parsed = Lock.safeParse(parseJson(text));
  if (!parsed.success) return undefined;
  return (await startTicks(parsed.data.pid)) === parsed.data.startTicks ? parsed.data : undefined;
}

/** Undefined for a file that a loss of power left empty: nobody holds it. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Takes the lock for this process; throws `already_running` when another live process has it. */
export async function takeLock(
  settings: Settings,
): Promise<{ setUrls(urls: { url: string; publicUrl: string }): Promise<void>; release(): Promise<void> }> {
  const other = await readLock(settings);
  if (other !== undefined && other.pid !== process.pid) {
    throw new PolydevError(
      'already_running',
      `process ${other.pid} runs with the data directory ${settings.dataDir}`,
    );
  }
  const file = settingsPaths(settings).lock;
  const ticks = (await startTicks(process.pid)) ?? '';
  const write = async (lock: Lock) => {
    await writeFile(`${file}.new`, JSON.stringify(lock), { mode: 0o644 });
    await rename(`${file}.new`, file);
  };
  await write({ pid: process.pid, startTicks: ticks });
  return {
    setUrls: (urls) => write({ pid: process.pid, startTicks: ticks, ...urls }),
    release: () => rm(file, { force: true }),
  };
}
