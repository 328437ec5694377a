/** What the driver must know of a machine after a restart of the host service: `driver.json`; of one asleep, `asleep/machine.json`. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { ImageId } from '../../../protocol/ids.ts';
import { MachineSpec, Stamp } from '../../../protocol/machine.ts';
import { parseJson, readIfThere, writeAtomic } from '../../system/files.ts';

const Guest = z.object({
  driver: z.literal('firecracker'),
  spec: MachineSpec,
  image: ImageId,
  address: z.string(),
  owner: z.number().int(),
  /** Root of the jail. */
  root: z.string(),
  /** Of Firecracker. */
  version: z.string(),
  /** It began as a copy of a template. */
  copied: z.boolean().default(false),
});
const State = Guest.extend({
  pid: z.number().int(),
  startTicks: z.number().int(),
  stamps: z.array(Stamp),
});
export type GuestRecord = z.infer<typeof Guest>;
export type State = z.infer<typeof State>;

const stateFile = (folder: string): string => join(folder, 'driver.json');
/** Memory and devices of a guest that sleeps. */
export const asleepFolder = (folder: string): string => join(folder, 'asleep');
const asleepFile = (folder: string): string => join(asleepFolder(folder), 'machine.json');

export const writeState = (folder: string, state: State): Promise<void> =>
  writeAtomic(stateFile(folder), JSON.stringify(state));

async function read<T>(file: string, schema: z.ZodType<T>): Promise<T | undefined> {
  const text = await readIfThere(file);
  return text === undefined ? undefined : schema.safeParse(parseJson(text)).data;
}

/** Undefined when there is none, or it is of another driver. */
export const readState = (folder: string): Promise<State | undefined> => read(stateFile(folder), State);
export const removeState = (folder: string): Promise<void> => rm(stateFile(folder), { force: true });

/** Says that the guest sleeps: the last thing that is written of it. */
export const writeAsleep = (folder: string, guest: GuestRecord): Promise<void> =>
  writeAtomic(asleepFile(folder), JSON.stringify(guest));
export const readAsleep = (folder: string): Promise<GuestRecord | undefined> =>
  read(asleepFile(folder), Guest);
/** Its memory and devices stay. */
export const wakeNever = (folder: string): Promise<void> => rm(asleepFile(folder), { force: true });
/** Forgets the guest that sleeps, its record first. */
export async function removeAsleep(folder: string): Promise<void> {
  await wakeNever(folder);
  await rm(asleepFolder(folder), { recursive: true, force: true });
}
