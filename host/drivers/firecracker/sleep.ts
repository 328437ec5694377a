/** Saves a guest beside its disk. */
import { renameSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeCgroup } from '../../system/cgroups.ts';
import { FirecrackerApi } from './api.ts';
import { PAUSE, RESUME, SAVE } from './args.ts';
import { IN_JAIL, jailId } from './jail.ts';
import { cgroupLimits, SNAPSHOT_TIMEOUT_MS } from './launch.ts';
import type { Place } from './options.ts';
import { asleepFolder, removeAsleep, type State, writeAsleep } from './state.ts';

/** The guest is paused and saved; its hypervisor has no use then but to be ended. When that fails the guest runs on, and the error is thrown. */
export async function saveGuest(state: State, { folder, cgroup }: Place, slowdown: number): Promise<void> {
  const limit = (saving: boolean): void =>
    makeCgroup(`${cgroup}/${jailId(state.spec.id)}`, cgroupLimits(state.spec.limits, saving));
  const api = new FirecrackerApi(join(state.root, IN_JAIL.api), slowdown);
  const to = asleepFolder(folder);
  await api.call(PAUSE);
  try {
    limit(true);
    await api.call(SAVE, SNAPSHOT_TIMEOUT_MS);
    await removeAsleep(folder);
    await mkdir(to, { recursive: true, mode: 0o711 });
    for (const name of [IN_JAIL.state, IN_JAIL.memory]) renameSync(join(state.root, name), join(to, name));
    const { driver, spec, image, address, owner, root, version, copied } = state;
    await writeAsleep(folder, { driver, spec, image, address, owner, root, version, copied });
  } catch (error) {
    for (const name of [IN_JAIL.state, IN_JAIL.memory]) await rm(join(state.root, name), { force: true });
    await removeAsleep(folder);
    limit(false);
    await api.call(RESUME);
    throw error;
  }
}
