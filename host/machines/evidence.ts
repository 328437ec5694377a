/** What stays of a machine when it is gone, bounded in number; each console is bounded by its driver. */
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PolydevError } from '../../protocol/errors.ts';
import type { EvidenceFile } from '../../protocol/host.ts';
import type { MachineId } from '../../protocol/ids.ts';
import { listIfThere, writeAtomic } from '../system/files.ts';

const KEPT_MACHINES = 200;
const NAME = /^[a-z][a-z0-9-]*\.(log|json)$/;

export class Evidence {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Writes files for a machine, replacing those of the same name, and drops the oldest machines beyond the bound. */
  async keep(id: MachineId, files: Readonly<Record<string, string>>): Promise<void> {
    const folder = join(this.#folder, id);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    for (const [name, text] of Object.entries(files)) await writeAtomic(join(folder, name), text);
    const machines = await listIfThere(this.#folder);
    if (machines.length <= KEPT_MACHINES) return;
    const aged = await Promise.all(
      machines.map(async (name) => ({ name, at: (await stat(join(this.#folder, name))).mtimeMs })),
    );
    aged.sort((a, b) => a.at - b.at);
    for (const { name } of aged.slice(0, machines.length - KEPT_MACHINES)) {
      await rm(join(this.#folder, name), { recursive: true, force: true });
    }
  }

  async list(id: MachineId): Promise<EvidenceFile[]> {
    const folder = join(this.#folder, id);
    const names = await readdir(folder).catch(() => []);
    return Promise.all(
      names
        .filter((name) => NAME.test(name))
        .map(async (name) => {
          const { size, mtime } = await stat(join(folder, name));
          return { name, bytes: size, modified: mtime.toISOString() };
        }),
    );
  }

  /** Throws `not_found`. */
  async read(id: MachineId, name: string): Promise<string> {
    if (!NAME.test(name)) throw new PolydevError('not_found', 'no such evidence');
    try {
      return await readFile(join(this.#folder, id, name), 'utf8');
    } catch (error) {
      throw new PolydevError('not_found', `no evidence ${name} of ${id}`, { cause: error });
    }
  }
}
