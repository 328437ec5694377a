/** One build at a time per cache directory: a lock file that names its holder, so that a dead one is recognised. */
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** `pid starttime`: the start time (field 22 of /proc/pid/stat, clock ticks) tells a reused pid from its former owner. */
async function identify(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : `${pid} ${fields[19]}`;
  } catch {
    return undefined;
  }
}

/** Pid of a living holder, or undefined when the lock is free or its holder is dead. */
async function livingHolder(content: string): Promise<number | undefined> {
  const pid = Number(content.split(' ')[0]);
  return Number.isInteger(pid) && pid > 0 && (await identify(pid)) === content.trim() ? pid : undefined;
}

/**
 * Takes the lock, waiting for a living holder (`onWait` is told its pid once) until `signal` aborts.
 * The returned object releases it when disposed of.
 */
export async function takeLock(
  file: string,
  options: { signal: AbortSignal; onWait?: (pid: number) => void },
): Promise<AsyncDisposable> {
  const mine = `${file}.${process.pid}.${Math.random().toString(36).slice(2)}`;
  await writeFile(mine, `${await identify(process.pid)}\n`);
  let told = false;
  try {
    for (;;) {
      options.signal.throwIfAborted();
      try {
        // link() fails if the name exists: the lock appears complete with its content, or not at all.
        await link(mine, file);
        return { [Symbol.asyncDispose]: () => rm(file, { force: true }) };
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
      const content = await readFile(file, 'utf8').catch(() => '');
      const pid = await livingHolder(content);
      if (pid === undefined) {
        await clearStale(file);
        continue;
      }
      if (!told) options.onWait?.(pid);
      told = true;
      await sleep(250, undefined, { signal: options.signal });
    }
  } finally {
    await rm(mine, { force: true });
  }
}

/** Removes the lock of a dead holder; puts it back if it turns out that somebody alive had just taken it. */
async function clearStale(file: string): Promise<void> {
  const aside = `${file}.stale.${process.pid}`;
  try {
    await rename(file, aside);
  } catch {
    return; // Somebody else cleared it.
  }
  if ((await livingHolder(await readFile(aside, 'utf8'))) !== undefined)
    await link(aside, file).catch(() => undefined);
  await rm(aside, { force: true });
}
