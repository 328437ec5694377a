/** Machines whose guest still runs, whatever driver runs them: what to keep when a host service starts. */
import { join } from 'node:path';
import { z } from 'zod';
import { DriverName } from '../../protocol/host.ts';
import type { MachineId } from '../../protocol/ids.ts';
import { MachineSpec, type Realm } from '../../protocol/machine.ts';
import { listIfThere, parseJson, readIfThere } from '../system/files.ts';
import { runs } from '../system/processes.ts';

/** In a machine's folder, from the moment its guest was started until it is taken back. */
const STATE_FILE = 'driver.json';

/** What every driver writes to it. */
const State = z.object({
  driver: DriverName.default('namespace'),
  spec: MachineSpec,
  pid: z.number().int(),
  startTicks: z.number().int(),
});

export interface Survivor {
  id: MachineId;
  realm: Realm;
  driver: DriverName;
}

export async function survivors(machinesFolder: string): Promise<Survivor[]> {
  const found: Survivor[] = [];
  for (const name of await listIfThere(machinesFolder)) {
    const text = await readIfThere(join(machinesFolder, name, STATE_FILE));
    // A file that a loss of power left empty says as much as none.
    const state = text === undefined ? undefined : State.safeParse(parseJson(text)).data;
    if (state === undefined) continue;
    const { spec, driver } = state;
    if (runs(state)) found.push({ id: spec.id, realm: spec.realm, driver });
  }
  return found;
}

/** Whether a driver has started the guest of a machine's folder and has not taken it back. */
export const wasStarted = async (folder: string): Promise<boolean> =>
  (await readIfThere(join(folder, STATE_FILE))) !== undefined;
