/** What is kept of a machine as evidence while it is here. */
import { join } from 'node:path';
import type { HostMachine } from '../../protocol/host.ts';
import { redactConsole } from '../../protocol/redact.ts';
import type { Entry } from './entry.ts';
import type { ManagerOptions } from './manager.ts';

export class Keeper {
  readonly #options: ManagerOptions;

  constructor(options: ManagerOptions) {
    this.#options = options;
  }

  /** Never throws: what cannot be looked up or written is less evidence, and no reason for a machine to fail. */
  async facts(entry: Entry, name: 'facts-start.json' | 'facts-failure.json'): Promise<void> {
    const { evidence, facts, log } = this.#options;
    const { spec, image } = entry;
    try {
      await evidence.keep(spec.id, { [name]: JSON.stringify(await facts(spec, image), null, 2) });
    } catch (err) {
      log.warn({ machine: spec.id, err }, `${name} was not kept`);
    }
  }

  /** Of a guest that has ended, once. Never throws: where there is nothing to read, the file says why. */
  async journal(entry: Entry): Promise<void> {
    const { evidence, driver, log } = this.#options;
    const { id } = entry.spec;
    if (driver.journal === undefined || entry.journalRead) return;
    entry.journalRead = true;
    try {
      await evidence.keepJournal(id, () => driver.journal?.(id, true));
    } catch (err) {
      log.warn({ machine: id, err }, 'its journal was not kept');
    }
  }

  /** Consoles, the driver's own files, and the machine as it is described; `more`: further files. Throws when they cannot be written. */
  async all(
    entry: Entry,
    described: HostMachine,
    more: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const { evidence, driver, machinesFolder, readConsole } = this.#options;
    const { agentTokenHash: _hash, ...spec } = entry.spec;
    await evidence.keep(spec.id, {
      'console.log': redactConsole(await readConsole(join(machinesFolder, spec.id))),
      ...((await driver.evidence?.(spec.id)) ?? {}),
      'machine-spec.json': JSON.stringify({ ...spec, image: entry.image }, null, 2),
      'machine.json': JSON.stringify(described, null, 2),
      ...more,
    });
  }
}
