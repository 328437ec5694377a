/** One running instance per data directory: a file with the pid and its start time, so that a reused pid is not believed. */
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { takeLock as takeGuard } from '../host/images/lock.ts';
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

const GUARD_DEADLINE_MS = 10_000;

/**
 * Takes the lock for this process; throws `already_running` when another live process has it. Of any number of processes
 * that try at the same moment one gets it.
 */
export async function takeLock(
  settings: Settings,
): Promise<{ setUrls(urls: { url: string; publicUrl: string }): Promise<void>; release(): Promise<void> }> {
  const file = settingsPaths(settings).lock;
  const lock: Lock = { pid: process.pid, startTicks: (await startTicks(process.pid)) ?? '' };
  const draft = `${file}.${process.pid}`;
  const write = (content: Lock) => writeFile(draft, JSON.stringify(content), { mode: 0o644 });
  // Whoever finds the lock of a dead process must not remove the one that somebody has put in its place meanwhile.
  const guard = await takeGuard(`${file}.guard`, { signal: AbortSignal.timeout(GUARD_DEADLINE_MS) });
  try {
    const other = await readLock(settings);
    if (other !== undefined) throw alreadyRunning(settings, `process ${other.pid} runs`);
    await rm(file, { force: true });
    await write(lock);
    await link(draft, file).catch((error: NodeJS.ErrnoException) => {
      throw error.code === 'EEXIST'
        ? alreadyRunning(settings, 'another process has just begun to run')
        : error;
    });
  } finally {
    await rm(draft, { force: true });
    await guard[Symbol.asyncDispose]();
  }
  return {
    setUrls: async (urls) => {
      await write({ ...lock, ...urls });
      await rename(draft, file);
    },
    release: () => rm(file, { force: true }),
  };
}

const alreadyRunning = (settings: Settings, who: string): PolydevError =>
  new PolydevError('already_running', `${who} with the data directory ${settings.dataDir}`);
