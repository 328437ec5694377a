/** Parts of an agent in a temporary directory, for the tests of this folder. Works with and without root. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { AgentLog } from '../log.ts';
import { imagePerson, makePersonDirectory } from '../person.ts';
import { Processes } from '../processes.ts';

export class Fixture implements AsyncDisposable {
  readonly root = mkdtempSync(path.join(tmpdir(), 'polydev-guest-'));
  readonly directory = path.join(this.root, 'agent');
  readonly log = new AgentLog(() => undefined);
  readonly processes: Processes;

  constructor() {
    chmodSync(this.root, 0o755);
    mkdirSync(this.directory, { mode: 0o755 });
    const person = imagePerson(path.join(this.root, 'home'));
    makePersonDirectory(person, person.home);
    const node = path.dirname(process.execPath);
    this.processes = new Processes({ ...person, path: `${person.path}:${node}` });
  }

  /** Writes a shell script that the person may run, and returns its path. */
  script(name: string, body: string): string {
    const file = path.join(this.root, name);
    writeFileSync(file, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    return file;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.processes.stopAll(1_000);
    rmSync(this.root, { recursive: true, force: true, maxRetries: 3 });
  }
}
