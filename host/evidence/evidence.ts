/**
 * host/evidence/: what stays of a machine when it is gone. One folder per machine, bounded in the number of machines and
 * in bytes; each file is bounded by who writes it (the console by its driver, uploads by protocol/host.ts).
 */
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PolydevError } from '../../protocol/errors.ts';
import type { EvidenceFile } from '../../protocol/host.ts';
import type { MachineId } from '../../protocol/ids.ts';
import { listIfThere, writeAtomic } from '../system/files.ts';

export interface Retention {
  /** Machines whose evidence is kept; the oldest go first. */
  machines: number;
  totalMiB: number;
}

/** How much is kept, as of the last time that something was. */
export interface Usage {
  machines: number;
  mib: number;
  maxMachines: number;
  maxMib: number;
}

const NAME = /^[a-z][a-z0-9-]*\.(log|json|png)$/;
const MIB = 1024 * 1024;

export class Evidence {
  readonly #folder: string;
  readonly #retention: Retention;
  #usage: Usage | undefined;

  constructor(folder: string, retention: Retention) {
    this.#folder = folder;
    this.#retention = retention;
  }

  /** Writes files for a machine, replacing those of the same name, and drops the oldest machines beyond the bounds. */
  async keep(id: MachineId, files: Readonly<Record<string, string | Buffer>>): Promise<void> {
    const folder = join(this.#folder, id);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    for (const [name, content] of Object.entries(files)) await writeAtomic(join(folder, name), content);
    this.#usage = await this.#retire(id);
  }

  /** Keeps what `read` gives as `journal.log`; when it throws, and none was kept while the guest still answered, why. */
  async keepJournal(id: MachineId, read: () => Promise<string | undefined> | undefined): Promise<void> {
    let text: string | undefined;
    try {
      text = await read();
    } catch (error) {
      if ((await this.text(id, 'journal.log')) !== '') return;
      text = `-- There is no journal: ${error instanceof Error ? error.message : String(error)} --\n`;
    }
    if (text !== undefined) await this.keep(id, { 'journal.log': text });
  }

  async usage(): Promise<Usage> {
    this.#usage ??= await this.#retire();
    return this.#usage;
  }

  async #retire(current?: MachineId): Promise<Usage> {
    const kept = await Promise.all(
      (await listIfThere(this.#folder)).map(async (name) => {
        const folder = join(this.#folder, name);
        const sizes = await Promise.all(
          (await listIfThere(folder)).map(async (file) => (await statOrNone(join(folder, file)))?.size ?? 0),
        );
        return {
          name,
          at: (await statOrNone(folder))?.mtimeMs ?? 0,
          bytes: sizes.reduce((sum, size) => sum + size, 0),
        };
      }),
    );
    kept.sort((a, b) => b.at - a.at);
    let [machines, bytes] = [0, 0];
    const stay = { machines: 0, bytes: 0 };
    for (const one of kept) {
      machines += 1;
      bytes += one.bytes;
      const over = machines > this.#retention.machines || bytes > this.#retention.totalMiB * MIB;
      if (over && one.name !== current) {
        await rm(join(this.#folder, one.name), { recursive: true, force: true });
      } else {
        stay.machines += 1;
        stay.bytes += one.bytes;
      }
    }
    return {
      machines: stay.machines,
      mib: Math.round(stay.bytes / MIB),
      maxMachines: this.#retention.machines,
      maxMib: this.#retention.totalMiB,
    };
  }

  async list(id: MachineId): Promise<EvidenceFile[]> {
    const folder = join(this.#folder, id);
    const names = await readdir(folder).catch(() => []);
    return Promise.all(
      names
        .filter((name) => NAME.test(name))
        .sort()
        .map(async (name) => {
          const { size, mtime } = await stat(join(folder, name));
          return { name, bytes: size, modified: mtime.toISOString() };
        }),
    );
  }

  /** Throws `not_found`. */
  async read(id: MachineId, name: string): Promise<Buffer> {
    if (!NAME.test(name)) throw new PolydevError('not_found', 'no such evidence');
    try {
      return await readFile(join(this.#folder, id, name));
    } catch (error) {
      throw new PolydevError('not_found', `no evidence ${name} of ${id}`, { cause: error });
    }
  }

  /** The text of a file, empty when there is none. */
  async text(id: MachineId, name: string): Promise<string> {
    try {
      return (await this.read(id, name)).toString('utf8');
    } catch {
      return '';
    }
  }

  /** Removes files of an earlier run of a machine that starts again. */
  async forget(id: MachineId, names: readonly string[]): Promise<void> {
    await Promise.all(names.map((name) => rm(join(this.#folder, id, name), { force: true })));
  }

  has(id: MachineId): Promise<boolean> {
    return statOrNone(join(this.#folder, id)).then((found) => found !== undefined);
  }
}

const statOrNone = (path: string) => stat(path).catch(() => undefined);
