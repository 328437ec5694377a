/** What the driver must know of a running machine after a restart of the host service: `driver.json` in its folder. */
import { join } from 'node:path';
import { z } from 'zod';
import { ImageId } from '../../../protocol/ids.ts';
import { MachineSpec, Stamp } from '../../../protocol/machine.ts';
import { parseJson, readIfThere, writeAtomic } from '../../system/files.ts';

const State = z.object({
  driver: z.literal('qemu'),
  spec: MachineSpec,
  image: ImageId,
  address: z.string(),
  owner: z.number().int(),
  mark: z.string(),
  pid: z.number().int(),
  startTicks: z.number().int(),
  stamps: z.array(Stamp),
});
export type State = z.infer<typeof State>;

const stateFile = (folder: string): string => join(folder, 'driver.json');

export const writeState = (folder: string, state: State): Promise<void> =>
  writeAtomic(stateFile(folder), JSON.stringify(state));

/** Undefined when there is none, or it is of another driver. */
export async function readState(folder: string): Promise<State | undefined> {
  const text = await readIfThere(stateFile(folder));
  return text === undefined ? undefined : State.safeParse(parseJson(text)).data;
}
