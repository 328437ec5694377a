/**
 * A template's files: the guest that was saved while nobody used it. Its memory, devices and disk belong to root and can be read only:
 * every copy maps the memory privately (Firecracker opens it for reading) and has its own copy of the disk. A copy that runs
 * has opened what it needs, and one that sleeps was saved whole: neither needs the template any more.
 */
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { ImageId } from '../../../protocol/ids.ts';
import { run } from '../../system/command.ts';
import { diskPath } from '../vm/disk.ts';
import { giveAway } from '../vm/template.ts';
import { IN_JAIL } from './jail.ts';
import { asleepFolder, wakeNever } from './state.ts';

/** A guest that was saved, as the driver knows it. */
export interface Saved {
  folder: string;
  image: ImageId;
  /** Of its agent. */
  token: string;
}

const DIG_TIMEOUT_MS = 60_000;

/** Where memory and devices are, below the folder of the machine it was. */
export const templateFolder = (folder: string): string => join(folder, 'template');
export const templateDisk = (folder: string): string => join(folder, 'template.img');

/** Makes a template of a guest that sleeps in `folder`, which nobody can wake then. */
export async function keepAsTemplate(folder: string, slowdown: number, signal: AbortSignal): Promise<void> {
  await wakeNever(folder);
  await rename(asleepFolder(folder), templateFolder(folder));
  const memory = join(templateFolder(folder), IN_JAIL.memory);
  // Most of it was never written, and Firecracker has written that out, too.
  const dig = ['fallocate', '--dig-holes', memory];
  await run(dig, { signal, timeoutMs: DIG_TIMEOUT_MS * slowdown, failure: 'machine_start_failed' });
  await rename(diskPath(folder), templateDisk(folder));
  for (const file of [memory, join(templateFolder(folder), IN_JAIL.state), templateDisk(folder)])
    giveAway(file);
}
