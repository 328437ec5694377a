/** What the driver must know of a machine after a restart of the host service: `driver.json`; of one asleep, `asleep/machine.json`. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { ImageId } from '../../../protocol/ids.ts';
import { MachineSpec, Stamp } from '../../../protocol/machine.ts';
import { parseJson, readIfThere, writeAtomic } from '../../system/files.ts';

const Guest = z.object({
  driver: z.literal('qemu'),
  spec: MachineSpec,
  image: ImageId,
  address: z.string(),
  owner: z.number().int(),
  mark: z.string(),
  /** It began as a copy. */
  copied: z.boolean().default(false),
});
const State = Guest.extend({
  pid: z.number().int(),
  startTicks: z.number().int(),
  stamps: z.array(Stamp),
});
export type State = z.infer<typeof State>;

/** Where alone a saved guest goes on: what hypervisor and processor it knows, and the kernel that lies beside it. */
export const Maker = z.object({ hypervisor: z.string(), processor: z.string(), kernel: z.string() });
export type Maker = z.infer<typeof Maker>;
const Asleep = Guest.extend({ maker: Maker });
export type Asleep = z.infer<typeof Asleep>;

const stateFile = (folder: string): string => join(folder, 'driver.json');

export const writeState = (folder: string, state: State): Promise<void> =>
  writeAtomic(stateFile(folder), JSON.stringify(state));

/** Undefined when there is none, or it is of another driver. */
export async function readState(folder: string): Promise<State | undefined> {
  const text = await readIfThere(stateFile(folder));
  return text === undefined ? undefined : State.safeParse(parseJson(text)).data;
}

/** Memory and devices of a guest that sleeps. */
const asleepFolder = (folder: string): string => join(folder, 'asleep');
export const memoryFile = (folder: string): string => join(asleepFolder(folder), 'memory');
const asleepFile = (folder: string): string => join(asleepFolder(folder), 'machine.json');

/** Says that the guest sleeps: the last thing that is written of it. */
export async function writeAsleep(folder: string, state: State, maker: Maker): Promise<void> {
  const { pid: _pid, startTicks: _ticks, stamps: _stamps, ...guest } = state;
  const asleep: Asleep = { ...guest, maker };
  await writeAtomic(asleepFile(folder), JSON.stringify(asleep));
}

export async function readAsleep(folder: string): Promise<Asleep | undefined> {
  const text = await readIfThere(asleepFile(folder));
  return text === undefined ? undefined : Asleep.safeParse(parseJson(text)).data;
}

/** Forgets the guest that sleeps, its record first. */
export async function removeAsleep(folder: string): Promise<void> {
  await rm(asleepFile(folder), { force: true });
  await rm(asleepFolder(folder), { recursive: true, force: true });
}
