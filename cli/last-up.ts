/** How `up` was started last with a data directory: what `doctor` examines while nothing runs. */
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import type { Settings } from './settings.ts';

const LastUp = z.object({
  port: z.number().int(),
  bind: z.string(),
  uplink: z.enum(['nat', 'none']),
  driver: z.enum(['auto', 'namespace', 'qemu', 'qemu-kvm', 'firecracker']),
});
export type LastUp = z.infer<typeof LastUp>;

/** As `up` is without options. */
const DEFAULTS: LastUp = { port: 4000, bind: '127.0.0.1', uplink: 'nat', driver: 'auto' };

const fileOf = ({ dataDir }: Settings): string => path.join(dataDir, 'last-up.json');

export async function rememberUp(settings: Settings, options: LastUp): Promise<void> {
  const { port, bind, uplink, driver } = options;
  await writeFile(fileOf(settings), `${JSON.stringify({ port, bind, uplink, driver })}\n`);
}

/** The defaults where nothing was remembered, or nothing that can be read. */
export async function readLastUp(settings: Settings): Promise<LastUp> {
  try {
    return LastUp.parse(JSON.parse(await readFile(fileOf(settings), 'utf8')));
  } catch {
    return DEFAULTS;
  }
}
