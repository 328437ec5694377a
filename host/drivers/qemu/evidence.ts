/** What the hypervisor of a machine was asked for, what it said, and how it is. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { HypervisorFacts } from '../../evidence/facts.ts';
import { readConsole } from '../../machines/console.ts';
import { readIfThere, writeAtomic } from '../../system/files.ts';
import { Qmp } from './qmp.ts';

const RECORD = 'hypervisor.json';
const MAX_LOG = 256 * 1024;
const QMP_MS = 2000;

/** Folder of what the hypervisor itself prints, kept as a console is. */
export const logFolder = (folder: string): string => join(folder, 'hypervisor');

/** Before it is started: exactly how. */
export const recordStart = (folder: string, start: object): Promise<void> =>
  writeAtomic(join(folder, RECORD), JSON.stringify(start, null, 2));

/** Its files of evidence. */
export async function hypervisorEvidence(folder: string): Promise<Record<string, string>> {
  const record = await readIfThere(join(folder, RECORD));
  return {
    ...(record === undefined ? {} : { 'hypervisor.json': record }),
    'hypervisor.log': (await readConsole(logFolder(folder))).slice(-MAX_LOG),
  };
}

/** Asks a hypervisor how its guest is; never throws. `pid` undefined: it does not run. */
export async function hypervisorFacts(pid: number | undefined, qmpPath: string): Promise<HypervisorFacts> {
  if (pid === undefined) return { state: 'it does not run', kernelArguments: null };
  const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
  const at = command.indexOf('-append');
  const kernelArguments = at === -1 ? null : (command[at + 1] ?? null);
  try {
    using qmp = await Qmp.connect(qmpPath, QMP_MS);
    const status = await qmp.execute('query-status', {}, QMP_MS);
    return { state: String((status as { status?: unknown }).status), kernelArguments };
  } catch (error) {
    return { state: error instanceof Error ? error.message : String(error), kernelArguments };
  }
}
