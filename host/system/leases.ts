/** Numbers that only one owner may hold at a time, one file each: claiming is an exclusive create. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createExclusive, listIfThere, readIfThere } from './files.ts';

export class Leases {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Claims one number for `owner`. False when somebody else holds it; claiming again what one holds is fine. */
  async claim(number: number, owner: string): Promise<boolean> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const path = join(this.#folder, String(number));
    return (await createExclusive(path, owner)) || (await readIfThere(path)) === owner;
  }

  /** Gives a number back if `owner` holds it. */
  async release(number: number, owner: string): Promise<void> {
    const path = join(this.#folder, String(number));
    if ((await readIfThere(path)) === owner) await rm(path, { force: true });
  }

  async list(): Promise<{ number: number; owner: string }[]> {
    const leases: { number: number; owner: string }[] = [];
    for (const name of await listIfThere(this.#folder)) {
      const owner = await readIfThere(join(this.#folder, name));
      if (owner !== undefined) leases.push({ number: Number(name), owner });
    }
    return leases;
  }
}
